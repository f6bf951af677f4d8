//! Processes of a test: started with no standard input and their output in a file, ended by their own pid.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use super::wait_for;

/// A process that ends with the test at the latest.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with its output and errors in the file `log`, which is begun anew.
    pub fn start(command: &mut Command, log: &Path) -> Self {
        let out = File::create(log).expect("log file");
        let errors = out.try_clone().expect("second handle of the log file");
        command.stdin(Stdio::null()).stdout(out).stderr(errors);
        let child = command.spawn().unwrap_or_else(|error| panic!("start {command:?}: {error}"));
        Process { child, log: log.to_owned() }
    }

    /// What the process has written so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("state of a process").is_none()
    }

    /// Sends a signal by its name without SIG: "TERM", "HUP", "INT".
    pub fn signal(&self, name: &str) {
        let sent = Command::new("sh").arg("-c").arg(format!("kill -{name} {}", self.pid())).status();
        assert!(sent.expect("sh").success(), "SIG{name} to {}", self.pid());
    }

    /// Asks the process to end and waits until it has.
    pub fn terminate(mut self) -> ExitStatus {
        self.signal("TERM");
        self.wait()
    }

    /// Ends the process at once, without a chance to finish anything.
    pub fn kill(mut self) {
        self.child.kill().expect("SIGKILL");
        self.child.wait().expect("end of a killed process");
    }

    /// Sends SIGKILL and does not wait: a process that waits for its disk ends only when that answers.
    pub fn strike(&mut self) {
        self.child.kill().expect("SIGKILL");
    }

    /// Waits for the process to end by itself.
    pub fn wait(&mut self) -> ExitStatus {
        let log = self.log.clone();
        wait_for(&format!("end of process {} (log {})", self.child.id(), log.display()), || {
            self.child.try_wait().expect("state of a process")
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- {}\n{}", self.log.display(), self.log());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs the program under test to its end.
pub fn flowproxy(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flowproxy"));
    command.args(arguments).stdin(Stdio::null());
    command.output().expect("the flowproxy binary")
}

/// The program under test, to be started.
pub fn flowproxy_command() -> Command {
    Command::new(env!("CARGO_BIN_EXE_flowproxy"))
}

/// Where a tool of the system is, if it is installed. Debian keeps some in folders that a user's PATH lacks.
pub fn find_tool(name: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    let folders = path.split(':').chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"]);
    folders.map(|folder| Path::new(folder).join(name)).find(|file| file.is_file())
}

/// Runs a tool to its end and gives what it printed.
///
/// # Panics
/// If it fails, with its output.
pub fn run_tool(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{text}{errors}", output.status);
    text
}
