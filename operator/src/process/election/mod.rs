//! Who leads, by a Lease: a pure state machine, fed with what the API server answered and with its own clock.
//!
//! 1. A leader that has not renewed for `renew`, counted from *sending* the last write that was taken, stops by itself.
//! 2. Others wait `duration`, longer than `renew`, from when *they* first saw the Lease as it is: clocks are not compared.
//! 3. Every write names the resourceVersion that was read, so of two that want the Lease one is told no.
//! 4. It saves work and no more: an old leader's last request may arrive late. Nothing may rest on there being one.

use std::time::Duration;

/// Times of an election, `retry < renew < duration`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// How long others wait.
    pub duration: Duration,
    /// How long a leader goes on without having renewed.
    pub renew: Duration,
    /// How often the Lease is renewed or looked at.
    pub retry: Duration,
}

/// A Lease as it was read or is to be written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Empty when it was let go of.
    pub holder: String,
    /// In seconds, as the holder wants it.
    pub duration_seconds: i32,
    /// How often it changed hands.
    pub transitions: i32,
}

/// A Lease at the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// What it says.
    pub record: Record,
    /// Of this state; every renewal changes it.
    pub version: String,
}

/// What happened. All times are of one monotonic clock, from any origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Time passed.
    Tick,
    /// The answer to [`Effect::Read`]; nothing when there is no Lease.
    Read(Option<Stored>),
    /// The answer to [`Effect::Write`]: taken.
    Written(Stored),
    /// The answer to [`Effect::Write`]: somebody else was faster.
    Refused,
    /// No answer, or one that says nothing about the Lease.
    Failed,
}

/// What to do. At most one request is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Read the Lease.
    Read,
    /// Write it: over this version, or anew.
    Write {
        /// What to write.
        record: Record,
        /// Over which state; nothing means create.
        over: Option<String>,
    },
    /// This process leads from now on.
    Lead,
    /// It leads no more.
    Stop,
}

/// An election, seen from one process.
#[derive(Clone, Debug)]
pub struct Election {
    identity: String,
    times: Times,
    /// The newest state that was seen, and since when.
    seen: Option<(Stored, Duration)>,
    /// When the request under way was sent.
    sent: Option<Duration>,
    /// When the last write that was taken was sent.
    leading: Option<Duration>,
    /// When to act again.
    next: Duration,
}

impl Election {
    /// A process that does not lead yet and looks at once.
    #[must_use]
    pub fn new(identity: String, times: Times) -> Self {
        Self { identity, times, seen: None, sent: None, leading: None, next: Duration::ZERO }
    }

    /// Whether this process leads.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.leading.is_some()
    }

    /// Who leads, as far as this process has seen; nobody when the Lease was let go of.
    #[must_use]
    pub fn holder(&self) -> Option<&str> {
        self.seen.as_ref().map(|(stored, _)| stored.record.holder.as_str()).filter(|holder| !holder.is_empty())
    }

    /// When [`Event::Tick`] is due at the latest.
    #[must_use]
    pub fn wake(&self) -> Duration {
        let next = if self.sent.is_some() { Duration::MAX } else { self.next };
        next.min(self.deadline().unwrap_or(Duration::MAX))
    }

    /// When a leader must have stopped.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        self.leading.map(|at| at + self.times.renew)
    }

    /// The write that lets go of the Lease, for a leader that ends.
    #[must_use]
    pub fn release(&self) -> Option<Effect> {
        let (stored, _) = self.seen.as_ref().filter(|(stored, _)| stored.record.holder == self.identity)?;
        let record = Record { holder: String::new(), duration_seconds: 1, ..stored.record.clone() };
        Some(Effect::Write { record, over: Some(stored.version.clone()) })
    }

    /// Takes what happened at a time; gives what to do, in order.
    pub fn step(&mut self, now: Duration, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Tick => {}
            Event::Read(found) => {
                self.sent = None;
                if let Some(stored) = found {
                    self.see(now, stored, &mut effects);
                    self.judge(now, &mut effects);
                } else {
                    self.seen = None;
                    self.write(now, None, &mut effects);
                }
            }
            Event::Written(stored) => {
                if let Some(sent) = self.sent.take()
                    && stored.record.holder == self.identity
                {
                    // A write that took longer than a leader may be silent makes no leader.
                    if now < sent + self.times.renew {
                        if self.leading.is_none() {
                            effects.push(Effect::Lead);
                        }
                        self.leading = Some(sent);
                    }
                }
                self.seen = Some((stored, now));
                self.next = now + self.times.retry;
            }
            Event::Refused => {
                self.sent = Some(now);
                effects.push(Effect::Read);
            }
            Event::Failed => {
                self.sent = None;
                self.next = now + self.times.retry;
            }
        }
        if self.deadline().is_some_and(|deadline| now >= deadline) {
            self.leading = None;
            effects.push(Effect::Stop);
        }
        if self.sent.is_none() && now >= self.next {
            self.sent = Some(now);
            // What a lost answer did to the Lease is not known, so it is read each time.
            effects.push(Effect::Read);
        }
        effects
    }

    /// Remembers a state, and since when it is as it is.
    fn see(&mut self, now: Duration, stored: Stored, effects: &mut Vec<Effect>) {
        if stored.record.holder != self.identity && self.leading.take().is_some() {
            effects.push(Effect::Stop);
        }
        if self.seen.as_ref().is_none_or(|(seen, _)| *seen != stored) {
            self.seen = Some((stored, now));
        }
    }

    /// Renews, takes over or waits.
    fn judge(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        let Some((stored, since)) = self.seen.clone() else { return };
        let ours = stored.record.holder == self.identity;
        let silent = u64::try_from(stored.record.duration_seconds).map_or(Duration::ZERO, Duration::from_secs);
        if ours || stored.record.holder.is_empty() || now >= since + silent {
            self.write(now, Some((stored, ours)), effects);
        } else {
            self.next = now + self.times.retry;
        }
    }

    fn write(&mut self, now: Duration, over: Option<(Stored, bool)>, effects: &mut Vec<Effect>) {
        let transitions = over.as_ref().map_or(0, |(stored, ours)| {
            if *ours { stored.record.transitions } else { stored.record.transitions.saturating_add(1) }
        });
        let duration_seconds = i32::try_from(self.times.duration.as_secs()).unwrap_or(i32::MAX).max(1);
        let record = Record { holder: self.identity.clone(), duration_seconds, transitions };
        self.sent = Some(now);
        effects.push(Effect::Write { record, over: over.map(|(stored, _)| stored.version) });
    }
}

#[cfg(test)]
mod tests;
