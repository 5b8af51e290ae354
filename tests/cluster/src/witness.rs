//! Hears from the apps of a test what they find and what was acknowledged to them, over TCP and outside of their nodes:
//! what was said is known whatever becomes of the app, its pod, its log and its node.
//!
//! A connection is one life of an app: `name`, then `found N`, then a line for each acknowledged number. A life that finds
//! less than an earlier one of that name was told ([`Witness::judge`]) is a loss, or an acknowledgement by somebody who was
//! replaced; it does not matter when either was heard.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::{Cluster, try_eventually};

/// One life of an app.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Life {
    /// The highest number that was there when it began; nothing before it has read its log.
    pub found: Option<u64>,
    /// The highest number that was acknowledged to it.
    pub acknowledged: u64,
}

type Heard = BTreeMap<String, Vec<Life>>;

/// Listens until it is dropped.
#[derive(Debug)]
pub struct Witness {
    address: SocketAddr,
    heard: Arc<Mutex<Heard>>,
    _listening: JoinSet<()>,
}

impl Witness {
    /// Listens where the pods of a cluster reach it.
    ///
    /// # Errors
    /// When it cannot.
    pub async fn listen(cluster: &Cluster) -> Result<Self> {
        let listener = TcpListener::bind((cluster.host_address(), 0)).await?;
        let (address, heard) = (listener.local_addr()?, Arc::default());
        let mut listening = JoinSet::new();
        listening.spawn(accept(listener, Arc::clone(&heard)));
        Ok(Self { address, heard, _listening: listening })
    }

    /// What apps are told: host and port.
    #[must_use]
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    fn heard(&self) -> Heard {
        // Nothing is done under the lock that could leave it half done.
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// All names.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.heard().into_keys().collect()
    }

    /// The lives of a name, in the order in which they began.
    #[must_use]
    pub fn lives(&self, name: &str) -> Vec<Life> {
        self.heard().remove(name).unwrap_or_default()
    }

    /// The highest number that was acknowledged to any life of a name.
    #[must_use]
    pub fn acknowledged(&self, name: &str) -> u64 {
        self.lives(name).iter().map(|life| life.acknowledged).max().unwrap_or(0)
    }

    /// Waits until a name has begun more than `before` lives, and `count` more entries were acknowledged to the newest of
    /// them than it found.
    ///
    /// # Errors
    /// When it does not happen in time, and when a life found less than was acknowledged before.
    pub async fn reborn(&self, name: &str, before: usize, count: u64) -> Result<()> {
        try_eventually(&format!("{name} begins another life after {before} and appends"), || async {
            let lives = self.lives(name);
            let newest = lives.last().filter(|_| lives.len() > before).context("none began")?;
            let found = newest.found.context("it has read nothing")?;
            ensure!(newest.acknowledged >= found + count, "{lives:?}");
            anyhow::Ok(())
        })
        .await?;
        self.judge()
    }

    /// Waits until `count` more entries are acknowledged to a name than now.
    ///
    /// # Errors
    /// When they are not in time, and when a life found less than was acknowledged before.
    pub async fn goes_on(&self, name: &str, count: u64) -> Result<()> {
        let wanted = self.acknowledged(name) + count;
        try_eventually(&format!("{name} goes on to {wanted}"), || async {
            let lives = self.lives(name);
            if self.acknowledged(name) >= wanted { Ok(()) } else { bail!("{lives:?}") }
        })
        .await?;
        self.judge()
    }

    /// Whether every life found all that was acknowledged to those before it of the same name, whenever that was.
    ///
    /// # Errors
    /// With the life that did not.
    pub fn judge(&self) -> Result<()> {
        self.heard().iter().try_for_each(|(name, lives)| judge(lives).with_context(|| name.clone()))
    }
}

fn judge(lives: &[Life]) -> Result<()> {
    let mut acknowledged = 0;
    for life in lives {
        let found = life.found.unwrap_or(u64::MAX);
        ensure!(found >= acknowledged, "a life found {found}, and {acknowledged} was acknowledged before: {lives:?}");
        acknowledged = acknowledged.max(life.acknowledged);
    }
    Ok(())
}

async fn accept(listener: TcpListener, heard: Arc<Mutex<Heard>>) {
    let mut lives = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(lives.spawn(hear(stream, Arc::clone(&heard)))),
                // It is dropped with the test; until then the apps are waited for in vain, which says why.
                Err(error) => return eprintln!("the witness hears nothing any more: {error}"),
            },
            Some(_) = lives.join_next(), if !lives.is_empty() => {}
        }
    }
}

/// Hears one life to its end.
async fn hear(stream: impl AsyncRead + Unpin, heard: Arc<Mutex<Heard>>) {
    let mut stream = BufReader::new(stream);
    let Some(name) = line(&mut stream).await else { return };
    let change = |life: Option<usize>, change: &dyn Fn(&mut Life)| {
        let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
        let lives = heard.entry(name.clone()).or_default();
        let life = life.unwrap_or_else(|| {
            lives.push(Life::default());
            lives.len() - 1
        });
        change(&mut lives[life]);
        life
    };
    let life = change(None, &|_| {});
    while let Some(line) = line(&mut stream).await {
        if let Some(found) = line.strip_prefix("found ").and_then(|number| number.parse().ok()) {
            change(Some(life), &|life| life.found = Some(found));
        } else if let Ok(number) = line.parse() {
            change(Some(life), &|life| life.acknowledged = life.acknowledged.max(number));
        }
    }
}

/// The next line. What ends in the middle of one was not said.
async fn line(stream: &mut (impl AsyncBufRead + Unpin)) -> Option<String> {
    let mut line = String::new();
    stream.read_line(&mut line).await.ok()?;
    line.strip_suffix('\n').map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_must_find_what_was_acknowledged_before_whenever_that_was() {
        let life = |found, acknowledged| Life { found, acknowledged };
        assert!(judge(&[life(Some(0), 7), life(Some(7), 9), life(Some(10), 0), life(None, 0)]).is_ok());
        assert!(judge(&[life(Some(0), 7), life(Some(6), 9)]).is_err(), "lost");
        assert!(judge(&[life(Some(0), 7), life(Some(7), 0), life(Some(6), 0)]).is_err(), "lost later");
    }

    #[tokio::test]
    async fn a_life_is_heard_line_by_line_and_half_a_line_is_not() {
        let heard = Arc::default();
        hear(&b"shop-0\nfound 3\n4\n5\n6"[..], Arc::clone(&heard)).await;
        hear(&b"shop-0\n"[..], Arc::clone(&heard)).await;
        let lives = heard.lock().unwrap().remove("shop-0").unwrap();
        assert_eq!(lives, [Life { found: Some(3), acknowledged: 5 }, Life::default()]);
    }
}
