// SPDX-License-Identifier: MIT OR Apache-2.0
//! QEMU's monitor: keys that are pressed, and what the machine's screen shows.

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// What the screen must show.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Screen {
    /// This text, in VGA text mode.
    Text(String),
    /// This colour (RRGGBB) in the first pixel.
    Colour(String),
}

/// A monitor that listens on a socket.
#[derive(Debug)]
pub(crate) struct Monitor {
    socket: PathBuf,
}

const PROMPT: &[u8] = b"(qemu) ";
const PATIENCE: Duration = Duration::from_secs(20);

impl Monitor {
    /// Adds a monitor to a machine that is about to be started.
    pub(crate) fn attach(command: &mut Command, name: &str) -> Self {
        let socket = std::env::temp_dir().join(format!("xenith-{}-{name}.monitor", std::process::id()));
        command.arg("-chardev").arg(format!("socket,id=monitor,path={},server=on,wait=off", socket.display()));
        command.args(["-mon", "chardev=monitor"]);
        Self { socket }
    }

    /// Has the machine's monitor carry out a command and returns what it answers.
    pub(crate) fn command(&self, text: &str) -> Result<String> {
        let mut stream = UnixStream::connect(&self.socket)
            .with_context(|| format!("no monitor listens on {}", self.socket.display()))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        until_prompt(&mut stream)?;
        stream.write_all(format!("{text}\n").as_bytes())?;
        until_prompt(&mut stream)
    }

    /// Presses the keys of a word, one after the other.
    pub(crate) fn press(&self, word: &str) -> Result<()> {
        for letter in word.chars() {
            self.command(&format!("sendkey {letter} 20"))?;
            std::thread::sleep(Duration::from_millis(60));
        }
        Ok(())
    }

    /// Fails unless the screen shows this, at once or soon.
    pub(crate) fn expect(&self, screen: &Screen) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let shown = match screen {
                Screen::Text(text) => self.text()?.contains(text),
                Screen::Colour(colour) => self.colour()? == *colour,
            };
            if shown {
                return Ok(());
            }
            if Instant::now() > deadline {
                let shown = match screen {
                    Screen::Text(_) => self.text()?,
                    Screen::Colour(_) => self.colour()?,
                };
                bail!("the screen shows not {screen:?}, but '{}'", shown.trim_end());
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    /// The characters in the memory of VGA's text mode: all of it, because a driver that scrolls moves the window that is
    /// seen through it.
    fn text(&self) -> Result<String> {
        let memory = self.file("pmemsave 0xb8000 32768", "text")?;
        Ok(memory.chunks(2).map(|cell| if cell[0].is_ascii_graphic() { char::from(cell[0]) } else { ' ' }).collect())
    }

    /// The first pixel of the screen.
    fn colour(&self) -> Result<String> {
        let picture = self.file("screendump", "ppm")?;
        // "P6", width, height and the largest value in text, a line each or together; then three bytes a pixel.
        let mut fields = 0;
        let start = picture.iter().position(|byte| {
            fields += usize::from(byte.is_ascii_whitespace());
            fields == 4
        });
        let pixels = &picture[start.context("the screen dump is no picture")? + 1..];
        ensure!(pixels.len() >= 3, "the screen dump is empty");
        Ok(format!("{:02x}{:02x}{:02x}", pixels[0], pixels[1], pixels[2]))
    }

    /// What a command writes to the file whose name is its last word.
    fn file(&self, command: &str, kind: &str) -> Result<Vec<u8>> {
        let path = self.socket.with_extension(kind);
        let answer = self.command(&format!("{command} \"{}\"", path.display()))?;
        let contents = fs::read(&path).with_context(|| format!("the monitor wrote no {}: {answer}", path.display()))?;
        fs::remove_file(&path)?;
        Ok(contents)
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        // It is missing if QEMU never started, and removed if QEMU ended by itself.
        let _ = fs::remove_file(Path::new(&self.socket));
    }
}

fn until_prompt(stream: &mut UnixStream) -> Result<String> {
    let mut answer = Vec::new();
    let mut byte = [0];
    while !answer.ends_with(PROMPT) {
        stream.read_exact(&mut byte).context("the monitor does not answer")?;
        answer.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
