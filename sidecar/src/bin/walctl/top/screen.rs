//! A terminal drawn in place: lines are overwritten, what does not fit is left out, keys are read one by one.

use std::io::{IsTerminal as _, Read as _, Write as _};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::sync::mpsc::Sender;

use crate::failure::Failure;

const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
const HOME: &str = "\x1b[H";
const END_LINE: &str = "\x1b[K";
const END_SCREEN: &str = "\x1b[J";
/// Ctrl-C, where the terminal makes no signal of it, and Ctrl-D.
const ENDS: [u8; 4] = [b'q', b'Q', 3, 4];

/// A terminal; dropped, it is as it was.
pub(super) struct Screen {
    /// How the keyboard was set, where it is one.
    keyboard: Option<Termios>,
}

impl Screen {
    /// The terminal that standard output is; none when it is none.
    pub(super) fn open() -> Option<Self> {
        if !std::io::stdout().is_terminal() {
            return None;
        }
        let input = std::io::stdin();
        let keyboard = input.is_terminal().then(|| tcgetattr(&input).ok()).flatten();
        if let Some(was) = &keyboard {
            let mut raw = was.clone();
            raw.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
            // Without it `q` needs the return key; that is all.
            let _ = tcsetattr(&input, OptionalActions::Now, &raw);
        }
        let _ = write(ENTER);
        Some(Self { keyboard })
    }

    /// Tells when somebody presses `q`.
    pub(super) fn on_quit(&self, quit: Sender<()>) {
        if self.keyboard.is_none() {
            return;
        }
        // Blocked in a read when the program ends; nobody waits for it.
        std::thread::spawn(move || {
            for key in std::io::stdin().lock().bytes() {
                match key {
                    Ok(key) if ENDS.contains(&key) => break,
                    Ok(_) => {}
                    Err(_) => return,
                }
            }
            let _ = quit.blocking_send(());
        });
    }

    /// Draws lines over what was there.
    #[allow(clippy::unused_self, reason = "only who has the screen may draw on it")]
    pub(super) fn draw(&self, lines: &[String]) -> Result<(), Failure> {
        let size = tcgetwinsize(std::io::stdout()).ok().filter(|size| size.ws_row > 0 && size.ws_col > 0);
        let (rows, columns) = size.map_or((24, 80), |size| (size.ws_row.into(), size.ws_col.into()));
        Ok(write(&frame(lines, rows, columns))?)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = write(LEAVE);
        if let Some(was) = &self.keyboard {
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, was);
        }
    }
}

fn write(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// What draws lines on a terminal of this size.
fn frame(lines: &[String], rows: usize, columns: usize) -> String {
    let mut text = String::from(HOME);
    for (row, line) in lines.iter().take(rows).enumerate() {
        if row > 0 {
            text.push_str("\r\n");
        }
        text.extend(line.chars().take(columns));
        text.push_str(END_LINE);
    }
    text.push_str(END_SCREEN);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_left_out() {
        let lines = ["äbcdef".to_owned(), String::new(), "gone".to_owned()];
        assert_eq!(frame(&lines, 2, 3), "\x1b[Häbc\x1b[K\r\n\x1b[K\x1b[J");
    }
}
