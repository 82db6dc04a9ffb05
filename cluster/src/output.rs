//! The one place that writes to the terminal: results to stdout, everything said beside them to stderr.
//! Invariant: with `--json`, stdout holds JSON and nothing else, so that programs can read it.
//! It must not know any command.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use comfy_table::{ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

/// How this run speaks: JSON for programs or text for people.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    pub(crate) json: bool,
}

/// Wrong usage that only shows after parsing; ends with exit code 2.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

impl Display for Usage {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// Why results could not be written: their reader, such as `head`, has seen enough. It is no failure, but it is told
/// apart from pipes and sockets to others that broke, which are.
#[derive(Debug)]
struct SeenEnough;

impl Display for SeenEnough {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("nobody reads the results any more")
    }
}

impl std::error::Error for SeenEnough {}

fn of_results(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::BrokenPipe {
        io::Error::new(io::ErrorKind::BrokenPipe, SeenEnough)
    } else {
        error
    }
}

/// Where results go.
struct Results(io::StdoutLock<'static>);

impl Results {
    fn lock() -> Self {
        Self(io::stdout().lock())
    }
}

impl Write for Results {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(of_results)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(of_results)
    }
}

/// A failure with a stable word that programs can branch on.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) text: String,
    pub(crate) code: String,
}

impl Display for Failure {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl std::error::Error for Failure {}

#[expect(
    clippy::unused_self,
    reason = "commands speak through the one output they were given"
)]
impl Output {
    pub(crate) fn line(self, text: impl Display) -> io::Result<()> {
        writeln!(Results::lock(), "{text}")
    }

    /// A document on its own: indented for eyes, since programs do not mind.
    pub(crate) fn document(self, value: &impl Serialize) -> io::Result<()> {
        let mut stdout = Results::lock();
        serde_json::to_writer_pretty(&mut stdout, value)?;
        writeln!(stdout)
    }

    /// One of many documents: a line each, flushed, so that a reader of a stream sees it at once.
    pub(crate) fn json_line(self, value: &impl Serialize) -> io::Result<()> {
        let mut stdout = Results::lock();
        serde_json::to_writer(&mut stdout, value)?;
        writeln!(stdout)?;
        stdout.flush()
    }

    /// Bytes exactly as they are.
    pub(crate) fn bytes(self, bytes: &[u8]) -> io::Result<()> {
        let mut stdout = Results::lock();
        stdout.write_all(bytes)?;
        stdout.flush()
    }

    pub(crate) fn table<const COLUMNS: usize>(
        self,
        header: [&str; COLUMNS],
        rows: impl IntoIterator<Item = [String; COLUMNS]>,
    ) -> io::Result<()> {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        if stdout_is_terminal() {
            table.set_content_arrangement(ContentArrangement::Dynamic);
        } else {
            table.set_content_arrangement(ContentArrangement::Disabled);
        }
        table.set_header(header);
        for row in rows {
            table.add_row(row);
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        let mut stdout = Results::lock();
        for line in table.lines() {
            writeln!(stdout, "{}", line.trim_end())?;
        }
        Ok(())
    }

    /// Makes room for a picture that replaces the one before; where nobody looks, the pictures follow each other.
    pub(crate) fn clear(self) -> io::Result<()> {
        if !stdout_is_terminal() {
            return Ok(());
        }
        let mut stdout = Results::lock();
        stdout.write_all(b"\x1b[H\x1b[2J\x1b[3J")?;
        stdout.flush()
    }

    /// Something said to a person beside the result; nobody reads it in JSON mode.
    pub(crate) fn note(self, text: impl Display) {
        if !self.json {
            // A closed stderr is no reason to fail the work itself.
            let _ = writeln!(io::stderr().lock(), "{text}");
        }
    }

    /// A progress bar on stderr, or an invisible one where nobody looks.
    pub(crate) fn progress(self, length: u64, what: &'static str) -> ProgressBar {
        if self.json || !io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let style = ProgressStyle::with_template("{msg} [{bar:30}] {pos}/{len} {elapsed}")
            .expect("the template is a constant that parses");
        ProgressBar::new(length).with_style(style).with_message(what)
    }

    /// For a wait whose length nobody knows.
    pub(crate) fn spinner(self, what: String) -> ProgressBar {
        if self.json || !io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let bar = ProgressBar::new_spinner().with_message(what);
        bar.enable_steady_tick(std::time::Duration::from_millis(100));
        bar
    }

    /// The same for bytes, whose number may not be known.
    pub(crate) fn byte_progress(self, what: &'static str, length: Option<u64>) -> ProgressBar {
        if self.json || !io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let (template, bar) = match length {
            Some(length) => (
                "{msg} [{bar:30}] {bytes}/{total_bytes} {elapsed}",
                ProgressBar::new(length),
            ),
            None => ("{msg} {spinner} {bytes} {elapsed}", ProgressBar::new_spinner()),
        };
        let style = ProgressStyle::with_template(template).expect("the templates are constants that parse");
        bar.with_style(style).with_message(what)
    }

    /// Asks yes or no on a terminal; None when there is nobody to ask.
    pub(crate) fn confirm(self, question: &str) -> io::Result<Option<bool>> {
        if self.json || !io::stdin().is_terminal() || !io::stderr().is_terminal() {
            return Ok(None);
        }
        write!(io::stderr().lock(), "{question} [y/N] ")?;
        let mut answer = String::new();
        io::stdin().read_line(&mut answer)?;
        Ok(Some(matches!(answer.trim(), "y" | "Y" | "yes")))
    }

    /// Tells why the command failed, and with which exit code it ends.
    pub(crate) fn failure(self, error: &anyhow::Error) -> ExitCode {
        if reader_has_seen_enough(error) {
            return ExitCode::SUCCESS;
        }
        let mut stderr = io::stderr().lock();
        let text = format!("{error:#}");
        let _ = if self.json {
            let code = error.downcast_ref::<Failure>().map(|failure| &failure.code);
            writeln!(stderr, "{}", serde_json::json!({ "error": text, "code": code }))
        } else {
            writeln!(stderr, "menagerie: {text}")
        };
        if error.is::<Usage>() {
            ExitCode::from(2)
        } else {
            ExitCode::from(1)
        }
    }
}

pub(crate) fn stdout_is_terminal() -> bool {
    io::stdout().is_terminal()
}

fn reader_has_seen_enough(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<io::Error>();
    let Some(cause) = error.and_then(io::Error::get_ref) else {
        return false;
    };
    cause.is::<SeenEnough>()
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn only_who_reads_results_can_have_seen_enough() {
        let broken = || io::Error::from(io::ErrorKind::BrokenPipe);
        let results = Err::<(), _>(of_results(broken())).context("show the keys");
        assert!(reader_has_seen_enough(&results.unwrap_err()));
        let full = of_results(io::ErrorKind::StorageFull.into());
        assert!(!reader_has_seen_enough(&full.into()));
        // As where a launcher ends before it has read the request.
        let elsewhere = Err::<(), _>(broken()).context("ask the launcher");
        assert!(!reader_has_seen_enough(&elsewhere.unwrap_err()));
    }
}
