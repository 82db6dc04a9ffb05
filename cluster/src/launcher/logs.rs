//! `menagerie logs [NAME…] [-f]`: what processes have logged, for people as text, for programs as it was written.
//! Invariant: following loses no line when a file is rotated under it: the old file is read to its end first.
//! It must not know whether the processes still run.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::Value;

use super::place::Place;
use super::plan;
use crate::context::{Context, block_on};
use crate::output::{Output, Usage};

/// The log of the supervisor itself, when it runs in the background.
const SUPERVISOR: &str = "supervisor";
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How much of the end of a file is searched for its last lines, and read at once.
const PIECE_BYTES: u64 = 1 << 20;

#[derive(Args)]
pub(crate) struct Logs {
    /// Processes such as n1, or `supervisor`; all of them when left out
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Go on with what is logged from now on, until Ctrl-C
    #[arg(long, short)]
    follow: bool,
    /// How many of the last lines to begin with
    #[arg(long, short = 'n', default_value_t = 20)]
    lines: usize,
}

impl Logs {
    pub(crate) fn run(self, context: Context) -> anyhow::Result<()> {
        let place = Place::new(&context.data);
        let mut known: Vec<String> = plan::processes(&context.config)
            .into_iter()
            .map(|process| process.name)
            .collect();
        known.push(SUPERVISOR.to_owned());
        if let Some(stranger) = self.names.iter().find(|name| !known.contains(name)) {
            bail!(Usage(format!(
                "there is no process {stranger:?}; there are: {}",
                known.join(", ")
            )));
        }
        let names = if self.names.is_empty() { known } else { self.names };
        let named = names.len() > 1;
        let mut logs: Vec<Log> = names
            .into_iter()
            .map(|name| Log::new(place.log_of(&name), named.then_some(name)))
            .collect();
        let mut any = false;
        for log in &mut logs {
            any |= log.begin(self.lines, context.output)?;
        }
        if !any && !self.follow {
            bail!(
                "nothing is logged in {} (the first `menagerie up` begins it; --data names another folder)",
                place.logs().display()
            );
        }
        if !self.follow {
            return Ok(());
        }
        block_on(async {
            loop {
                for log in &mut logs {
                    log.go_on(context.output)?;
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        })
    }
}

struct Log {
    path: PathBuf,
    /// Shown before each line when there are several logs.
    name: Option<String>,
    open: Option<File>,
    /// The beginning of a line whose end is not written yet.
    begun: Vec<u8>,
}

impl Log {
    fn new(path: PathBuf, name: Option<String>) -> Self {
        Self {
            path,
            name,
            open: None,
            begun: Vec::new(),
        }
    }

    /// Prints the last lines; false when there is no such file.
    fn begin(&mut self, lines: usize, output: Output) -> anyhow::Result<bool> {
        let Some(mut file) = self.open_file()? else {
            return Ok(false);
        };
        let length = file.metadata().context("look at the log")?.len();
        let start = length.saturating_sub(PIECE_BYTES);
        file.seek(SeekFrom::Start(start))
            .context("find the end of the log")?;
        let mut end = Vec::new();
        file.by_ref()
            .take(PIECE_BYTES)
            .read_to_end(&mut end)
            .context("read the log")?;
        let whole = end.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        self.begun = end.split_off(whole);
        let text = String::from_utf8_lossy(&end);
        let known: Vec<&str> = text.lines().collect();
        for line in &known[known.len().saturating_sub(lines)..] {
            self.print(line, output)?;
        }
        self.open = Some(file);
        Ok(true)
    }

    fn open_file(&self) -> anyhow::Result<Option<File>> {
        match File::open(&self.path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("open {}", self.path.display())),
        }
    }

    /// Prints what has come since the last time.
    fn go_on(&mut self, output: Output) -> anyhow::Result<()> {
        // Looked at before the old file is read to its end: after a rotation nothing comes to it any more.
        let replaced = self.is_replaced();
        self.read_on(output)?;
        if replaced || self.open.is_none() {
            self.open = self.open_file()?;
            self.read_on(output)?;
        }
        Ok(())
    }

    fn is_replaced(&self) -> bool {
        let Some(open) = self.open.as_ref().and_then(|file| file.metadata().ok()) else {
            return false;
        };
        let present = std::fs::metadata(&self.path);
        present.is_ok_and(|present| (present.dev(), present.ino()) != (open.dev(), open.ino()))
    }

    fn read_on(&mut self, output: Output) -> anyhow::Result<()> {
        let Some(file) = &mut self.open else { return Ok(()) };
        let length = file.metadata().context("look at the log")?.len();
        if length < file.stream_position().context("find the place in the log")? {
            // Somebody has emptied it.
            file.rewind().context("go to the beginning of the log")?;
        }
        loop {
            let mut piece = Vec::new();
            let Some(file) = &mut self.open else { return Ok(()) };
            file.by_ref()
                .take(PIECE_BYTES)
                .read_to_end(&mut piece)
                .context("read the log")?;
            if piece.is_empty() {
                return Ok(());
            }
            self.begun.append(&mut piece);
            while let Some(end) = self.begun.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.begun.drain(..=end).collect();
                self.print(String::from_utf8_lossy(&line).trim_end(), output)?;
            }
        }
    }

    fn print(&self, line: &str, output: Output) -> anyhow::Result<()> {
        if output.json {
            return Ok(output.line(line)?);
        }
        let text = readable(line).unwrap_or_else(|| line.to_owned());
        match &self.name {
            Some(name) => output.line(format_args!("{name:<10} {text}"))?,
            None => output.line(text)?,
        }
        Ok(())
    }
}

/// A line that was written for machines, in the order in which people read; None for any other line.
fn readable(line: &str) -> Option<String> {
    let Ok(Value::Object(mut fields)) = serde_json::from_str(line) else {
        return None;
    };
    let mut take = |name: &str| match fields.remove(name) {
        Some(Value::String(text)) => text,
        Some(other) => other.to_string(),
        None => String::new(),
    };
    let (time, level, message) = (take("time"), take("level"), take("message"));
    for known in ["process", "target", "spans"] {
        take(known);
    }
    // The date is the same all day; the time up to milliseconds is what one compares.
    let clock = time.split_once('T').map_or("", |(_, clock)| clock);
    let clock = clock.get(..12).unwrap_or(clock);
    let mut text = format!("{clock} {level:<5} {message}");
    for (name, value) in fields {
        let value = match value {
            Value::String(value) => value,
            other => other.to_string(),
        };
        // Writing to a string cannot fail.
        let _ = write!(text, "  {name}={value}");
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::readable;

    #[test]
    fn lines_for_machines_are_put_in_the_order_of_people() {
        let line = r#"{"level":"WARN","node.id":2,"message":"no answer","process":"n1","target":"t","time":"2026-11-20T19:04:25.123456Z"}"#;
        insta::assert_snapshot!(readable(line).unwrap(), @"19:04:25.123 WARN  no answer  node.id=2");
        assert_eq!(readable("thread 'main' panicked"), None);
        assert_eq!(readable("[1, 2]"), None);
    }
}
