//! Whether a batch kills who decodes it: a process of its own tries.
//!
//! A collector that was killed while a batch was being decoded need not have died of it: somebody may have killed it,
//! or the disk under the note of [`super::deaths`] stalled and kept the name of a batch that was long decoded. So a
//! batch that has been blamed too often is decoded once by the hidden command `try-batch` of the same program, and is
//! refused only when that dies or does not end.

use super::commit::open_and_render;
use crate::proto::Codec;
use std::io::{self, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// The name of the command.
pub const COMMAND: &str = "try-batch";
/// How long a batch may take: one of the greatest size takes less than a second.
const MOST: Duration = Duration::from_secs(60);
/// Between two looks at the child.
const LOOK: Duration = Duration::from_millis(5);

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The batch was decoded or found wrong, and the process lived.
    Lives,
    /// The process died, or did not end.
    Kills,
    /// No process could be started: nothing is known.
    Unknown,
}

/// Decodes a batch elsewhere: codec, plain size in bytes, payload.
pub type Trial = Box<dyn FnMut(Codec, u32, &[u8]) -> Verdict + Send>;

/// Tries with this program.
pub fn by_child() -> Trial {
    Box::new(|codec, plain_size, payload| {
        // Also when the program was replaced meanwhile, this is the one that runs.
        let mut program = Command::new("/proc/self/exe");
        let numbers = [i32::from(codec).to_string(), plain_size.to_string()];
        judge(program.arg(COMMAND).args(numbers), payload, MOST)
    })
}

/// The child's part: decodes what comes in as the commit would.
///
/// # Errors
/// When the batch can not be read from `input`.
pub fn decode(codec: Codec, plain_size: u32, mut input: impl Read) -> io::Result<()> {
    let mut payload = Vec::new();
    input.read_to_end(&mut payload)?;
    // What is wrong with it is for the collector to say.
    let _ = open_and_render(codec, plain_size, &payload.into(), true, &mut Vec::new());
    Ok(())
}

fn judge(program: &mut Command, payload: &[u8], most: Duration) -> Verdict {
    program.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let ended = program.spawn().and_then(|mut child| {
        if let Some(mut input) = child.stdin.take() {
            // One that is gone already has its status.
            let _ = input.write_all(payload);
        }
        wait(&mut child, most)
    });
    match ended {
        Ok(None) => Verdict::Kills,
        Ok(Some(status)) if status.success() => Verdict::Lives,
        Ok(Some(status)) if status.signal().is_some() => Verdict::Kills,
        Ok(Some(status)) => {
            tracing::warn!(%status, "The process that was to try a batch did not");
            Verdict::Unknown
        }
        Err(error) => {
            tracing::warn!(%error, "No process could be started to try a batch");
            Verdict::Unknown
        }
    }
}

/// How it ended; `None` if it had to be killed.
fn wait(child: &mut Child, most: Duration) -> io::Result<Option<ExitStatus>> {
    let begin = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if begin.elapsed() >= most {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(LOOK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(script: &str, most: Duration) -> Verdict {
        judge(Command::new("sh").args(["-c", script]), &[7; 100_000], most)
    }

    #[test]
    fn only_who_dies_is_killed() {
        assert_eq!(of("cat", MOST), Verdict::Lives);
        assert_eq!(of("true", MOST), Verdict::Lives);
        assert_eq!(of("kill -SEGV $$", MOST), Verdict::Kills);
        assert_eq!(of("cat; kill -KILL $$", MOST), Verdict::Kills);
        assert_eq!(of("cat; exec sleep 1000", Duration::from_millis(50)), Verdict::Kills);
        assert_eq!(of("exit 3", MOST), Verdict::Unknown);
        assert_eq!(judge(&mut Command::new("/nowhere/flowproxy"), &[], MOST), Verdict::Unknown);
    }

    #[test]
    fn what_is_no_batch_is_survived() {
        decode(Codec::Zstd, 100, &b"no batch"[..]).unwrap();
        decode(Codec::Plain, u32::MAX, &[][..]).unwrap();
    }
}
