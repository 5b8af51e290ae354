//! `walctl top`: what the sidecar does now, drawn again and again.
//!
//! 1. It asks with the calls that any client has (GetStatus, ListCollections); rates are differences of two answers.
//! 2. On a terminal it draws in place and gives the terminal back as it was, however it ends; elsewhere it prints one
//!    table, or with `--output json` one line, after each interval.
//! 3. A sidecar that goes away is said so and asked again; only the first try must succeed.

mod draw;
mod sample;
mod screen;

use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use self::sample::{Sample, View};
use self::screen::Screen;
use crate::Global;
use crate::collections::all;
use crate::connect::{Client, connect};
use crate::failure::Failure;
use crate::output::{self, Output};
use walstorage_sidecar::proto::GetStatusRequest;

#[derive(Args, Debug)]
pub(crate) struct TopArgs {
    /// Seconds between two looks
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    interval: Duration,
    /// How many of the busiest collections to show
    #[arg(long, value_name = "N", default_value_t = 10)]
    collections: usize,
    /// Look twice, print once, end
    #[arg(long)]
    once: bool,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no number of seconds from 0.1 to 3600");
    let seconds: f64 = text.parse().map_err(|_| wrong())?;
    if (0.1..=3600.0).contains(&seconds) { Ok(Duration::from_secs_f64(seconds)) } else { Err(wrong()) }
}

pub(crate) async fn run(global: &Global, args: TopArgs) -> Result<(), Failure> {
    let TopArgs { interval, collections, once } = args;
    let mut client = connect(&global.socket).await?;
    let mut before = look(&mut client).await?;
    let live = !once && global.output == Output::Table;
    let screen = if live { Screen::open() } else { None };
    let (quit, pressed) = mpsc::channel(1);
    let (interrupted, terminated) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut end = End { pressed, interrupted, terminated };
    if let Some(screen) = &screen {
        screen.on_quit(quit.clone());
        screen.draw(&draw::waiting(&before))?;
    }
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // The first tick is at once.
    ticks.tick().await;
    loop {
        let now = tokio::select! {
            () = end.comes() => return Ok(()),
            now = async {
                ticks.tick().await;
                again(global, &mut client).await
            } => now,
        };
        let now = match now {
            Ok(now) => now,
            Err(failure) if once => return Err(failure),
            Err(failure) => {
                match &screen {
                    Some(screen) => screen.draw(&draw::unreachable(&failure))?,
                    None => failure.tell(),
                }
                continue;
            }
        };
        let view = View::between(&before, &now, collections);
        match (&screen, global.output) {
            (Some(screen), _) => screen.draw(&draw::lines(&view))?,
            (None, Output::Json) => output::json(&view)?,
            (None, Output::Table | Output::Raw) => {
                for line in draw::lines(&view) {
                    output::line(&line)?;
                }
                if !once {
                    output::line("")?;
                }
            }
        }
        if once {
            return Ok(());
        }
        before = now;
    }
}

/// Whatever ends it.
struct End {
    pressed: mpsc::Receiver<()>,
    interrupted: Signal,
    terminated: Signal,
}

impl End {
    async fn comes(&mut self) {
        tokio::select! {
            _ = self.pressed.recv() => {}
            _ = self.interrupted.recv() => {}
            _ = self.terminated.recv() => {}
        }
    }
}

async fn look(client: &mut Client) -> Result<Sample, Failure> {
    let status = client.get_status(GetStatusRequest {}).await?.into_inner();
    // Before it is ready it knows no collections.
    let ready = matches!(status.phase.as_str(), "ready" | "draining" | "stopping");
    let collections = if ready { all(client).await? } else { Vec::new() };
    Ok(Sample::new(status, collections))
}

/// Looks, over a new connection where the old one has ended.
async fn again(global: &Global, client: &mut Client) -> Result<Sample, Failure> {
    if let Ok(sample) = look(client).await {
        return Ok(sample);
    }
    *client = connect(&global.socket).await?;
    look(client).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_a_number_of_seconds() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for wrong in ["0", "-1", "NaN", "inf", "x", "3601"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
