//! Logs: one line per event on standard error, text on a terminal, else JSON.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use super::exit::Exit;

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}

impl LogFormat {
    /// By `WALSTORAGE_LOG_FORMAT` (text or json), else by what standard error is.
    ///
    /// # Errors
    /// When the variable says something else.
    pub fn from_environment() -> Result<Self, String> {
        match std::env::var("WALSTORAGE_LOG_FORMAT").unwrap_or_default().as_str() {
            "" if std::io::stderr().is_terminal() => Ok(Self::Text),
            "" | "json" => Ok(Self::Json),
            "text" => Ok(Self::Text),
            other => Err(format!("WALSTORAGE_LOG_FORMAT={other}: allowed: text, json")),
        }
    }
}

/// Starts logging, filtered by `WALSTORAGE_LOG` (for example `debug`, or `info,walstorage_sidecar::engine=trace`).
///
/// # Errors
/// When a variable cannot be understood.
pub fn start() -> Result<LogFormat, String> {
    let format = LogFormat::from_environment()?;
    let filter = std::env::var("WALSTORAGE_LOG").unwrap_or_default();
    let filter = if filter.is_empty() { "info".to_owned() } else { filter };
    let filter = EnvFilter::try_new(&filter).map_err(|e| format!("WALSTORAGE_LOG={filter}: {e}"))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init(),
    };
    started.map_err(|e| format!("logging cannot start: {e}"))?;
    std::panic::set_hook(Box::new(log_panic));
    Ok(format)
}

/// A panic is a bug; it is one event like any other.
fn log_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let message = panic.payload_as_str().unwrap_or("a value that is no text");
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let thread = std::thread::current();
    let backtrace = std::backtrace::Backtrace::capture();
    let backtrace = match backtrace.status() {
        std::backtrace::BacktraceStatus::Captured => Some(backtrace.to_string()),
        _ => None,
    };
    tracing::error!(place, thread = thread.name(), backtrace, "a bug: panic: {message}");
}

/// Says why the process ends, in the form of the logs.
pub fn report(exit: &Exit, format: LogFormat) {
    for message in &exit.messages {
        match format {
            LogFormat::Json => tracing::error!(exit = exit.code(), "{message}"),
            LogFormat::Text => eprintln!("error: {message}"),
        }
    }
}
