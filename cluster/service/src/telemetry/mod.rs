//! What a process tells about itself while it runs: text for people, JSON lines for machines.
//! Invariant: a panic is a line of the log like any other; a line that cannot be written is lost, and the process goes
//! on; nothing is written to standard output, which belongs to the answers of commands.
//! It must not know what is logged.

mod json;

use std::io::IsTerminal as _;
use std::panic::PanicHookInfo;

use anyhow::Context as _;
use tracing_subscriber::EnvFilter;

use json::JsonLines;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// Text on a terminal, JSON otherwise.
    #[default]
    Auto,
    Text,
    Json,
    /// Text, and unless a filter says otherwise only what somebody must look at.
    Quiet,
}

/// Begins logging to standard error, once for the process; the filter is `RUST_LOG`, else `info` (openraft: `warn`).
pub fn init(process_name: &str, format: Format) -> anyhow::Result<()> {
    init_with_filter(process_name, format, None)
}

/// The same with a filter that goes before `RUST_LOG`.
pub fn init_with_filter(process_name: &str, format: Format, filter: Option<&str>) -> anyhow::Result<()> {
    let filter = chosen_filter(filter, format)?;
    let terminal = std::io::stderr().is_terminal();
    let json = match format {
        Format::Auto => !terminal,
        Format::Text | Format::Quiet => false,
        Format::Json => true,
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // What cannot be written, as on a full disk, would be told with `eprintln!`, to the same place: that panics,
        // the panic is logged, which panics again, and so the process is aborted.
        .log_internal_errors(false);
    let begun = if json {
        // The fields of spans are formatted before the line is; escapes for colours would end up inside it.
        let lines = JsonLines::new(process_name);
        builder.with_ansi(false).event_format(lines).try_init()
    } else {
        builder.with_ansi(terminal).with_target(false).try_init()
    };
    begun.map_err(|error| anyhow::anyhow!(error).context("begin logging"))?;
    std::panic::set_hook(Box::new(log_panic));
    Ok(())
}

fn chosen_filter(given: Option<&str>, format: Format) -> anyhow::Result<EnvFilter> {
    let from_environment = std::env::var(EnvFilter::DEFAULT_ENV).ok();
    let text = match given.or(from_environment.as_deref()) {
        Some(text) if !text.trim().is_empty() => text,
        _ if format == Format::Quiet => "warn",
        // openraft tells every step of a change of leader at info; what matters of it this project says itself.
        _ => "info,openraft=warn",
    };
    EnvFilter::try_new(text).with_context(|| format!("read the log filter \"{text}\""))
}

fn log_panic(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string);
    let message = panic.payload_as_str().unwrap_or("no message");
    let backtrace = std::backtrace::Backtrace::capture();
    tracing::error!(
        panic.place = place.unwrap_or_default(),
        panic.backtrace = %backtrace,
        "panicked: {message}"
    );
}
