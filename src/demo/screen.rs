//! Where the demo shows how it goes: a table that is drawn anew on a terminal, or else lines on stderr.

use super::Show;
use super::view::{Look, Scene, line, table};
use std::io::{self, IsTerminal, Write};
use terminal_size::{Height, Width, terminal_size};

/// Another screen, so that the table leaves nothing behind; no cursor, no wrapping.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";
const HOME: &str = "\x1b[H";
const CLEAR_TO_LINE_END: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";

/// Where it is shown; [`Show::Table`] only if there is a terminal.
#[derive(Debug)]
pub struct Screen {
    show: Show,
}

impl Screen {
    /// Takes the terminal for the table, if it is wanted and there is one.
    pub fn open(wanted: Show) -> Screen {
        let show = match wanted {
            Show::Table if !io::stdout().is_terminal() => Show::Lines,
            wanted => wanted,
        };
        if show == Show::Table {
            put(&mut io::stdout().lock(), ENTER);
        }
        Screen { show }
    }

    /// Shows the newest look; `before` is an earlier one that rates are taken from.
    pub fn show(&self, scene: &Scene, now: &Look, before: &Look) {
        match self.show {
            Show::Table => {
                let rows = terminal_size().map_or(24, |(Width(_), Height(rows))| usize::from(rows));
                put(&mut io::stdout().lock(), &frame(&table(scene, now, before, rows), rows));
            }
            Show::Lines => put(&mut io::stderr().lock(), &format!("{}\n", line(now, before))),
            Show::Nothing => {}
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if self.show == Show::Table {
            put(&mut io::stdout().lock(), LEAVE);
        }
    }
}

/// The text over what was there before, cut to a terminal of so many rows.
fn frame(text: &str, rows: usize) -> String {
    let mut frame = String::from(HOME);
    for (row, line) in text.lines().take(rows).enumerate() {
        if row > 0 {
            frame.push_str("\r\n");
        }
        frame.push_str(line);
        frame.push_str(CLEAR_TO_LINE_END);
    }
    frame.push_str(CLEAR_BELOW);
    frame
}

/// A terminal or pipe that is gone is no reason to stop.
fn put(to: &mut impl Write, text: &str) {
    let _ = to.write_all(text.as_bytes()).and_then(|()| to.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_covers_the_one_before_and_never_scrolls() {
        assert_eq!(frame("one\ntwo\nthree\n", 2), "\x1b[Hone\x1b[K\r\ntwo\x1b[K\x1b[J");
        assert_eq!(frame("one\n", 24), "\x1b[Hone\x1b[K\x1b[J");
    }
}
