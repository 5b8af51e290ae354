//! Logs on standard error: JSON where a machine collects them, text where a person reads them.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use super::options::LogFormat;

/// Starts logging, once per process.
///
/// # Errors
/// A sentence, when the filter cannot be read or logs were started before.
pub fn start(format: LogFormat, filter: &str) -> Result<(), String> {
    let filter = EnvFilter::try_new(filter).map_err(|error| {
        format!("--log {filter:?}: {error}; allowed: error, warn, info, debug, trace, or pairs like kube=debug,info")
    })?;
    let json = match format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !std::io::stderr().is_terminal(),
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = if json {
        builder.json().flatten_event(true).with_current_span(true).with_span_list(false).try_init()
    } else {
        builder.with_target(false).with_ansi(std::io::stderr().is_terminal()).try_init()
    };
    started.map_err(|error| error.to_string())
}
