//! Truncating and deleting collections: both are facts, and take effect when their fact is durable.

use std::time::Instant;

use super::answer::ChangeWaiter;
use super::collection::{ColIx, DirIx, TruncateWish};
use super::journal::Fact;
use super::log::Log;
use crate::error::{ApiError, Reason};
use crate::types::{CollectionName, Incarnation, Lsn};

impl Log {
    /// Asks to forget everything up to `up_to`; `waiter` is answered when that is durable. Above the durable head it
    /// first waits until `up_to` is durable.
    ///
    /// # Errors
    /// INVALID_REQUEST above the assigned head; COLLECTION_NOT_FOUND; NO_HEALTHY_DIRECTORY.
    pub(crate) fn truncate(
        &mut self,
        name: &CollectionName,
        up_to: Lsn,
        waiter: ChangeWaiter<Lsn>,
        now: Instant,
    ) -> Result<(), ApiError> {
        self.check_open()?;
        let collection = self.find(name)?;
        if up_to > collection.assigned_head {
            return Err(ApiError::new(
                Reason::InvalidRequest,
                format!(
                    "up_to is {up_to}, but the last entry of {:?} is {}: truncate at most to that",
                    name.as_str(),
                    collection.assigned_head
                ),
            ));
        }
        if up_to <= collection.truncated_to {
            let truncated_to = collection.truncated_to;
            self.outbox.truncated(waiter, Ok(truncated_to));
            return Ok(());
        }
        if up_to > collection.durable_head && collection.is_parked() {
            // Nobody can say when it will be.
            let message = format!(
                "LSN {up_to} is not durable yet, and no directory takes entries now: truncate at most to {}, or try again \
                 later",
                collection.durable_head
            );
            return Err(ApiError::new(Reason::NoHealthyDirectory, message));
        }
        let home = self.commit_journal(collection.home);
        self.healthy_for_facts(home).ok_or_else(no_directory_for_facts)?;
        let Some(ix) = self.by_name.get(name) else { return Ok(()) };
        if let Some(collection) = self.collections[ix].as_mut() {
            collection.truncates.push(TruncateWish { up_to, waiter });
        }
        if up_to <= self.get(ix).durable_head {
            self.queue_truncate(ix, now);
        }
        Ok(())
    }

    /// Queues the TRUNCATE of a collection's wishes, once.
    pub(super) fn queue_truncate(&mut self, ix: ColIx, now: Instant) {
        let Some(collection) = self.collections[ix].as_mut() else { return };
        if collection.truncate_queued || collection.truncates.is_empty() {
            return;
        }
        collection.truncate_queued = true;
        let (incarnation, home) = (collection.incarnation, collection.home);
        self.queue_fact(self.commit_journal(home), Fact::Truncate(ix, incarnation), now);
    }

    /// Queues a fact in `preferred`, or in any healthy directory when that one is not; with none its waiters learn
    /// that the outcome is unknown.
    pub(super) fn queue_fact(&mut self, preferred: DirIx, fact: Fact, now: Instant) {
        match self.healthy_for_facts(preferred) {
            Some(dir) => {
                self.journals[dir].facts.push_back(fact);
                self.journals[dir].due(now);
            }
            None => match fact {
                Fact::Truncate(ix, incarnation) => {
                    if let Some(collection) = self.live(ix, incarnation) {
                        collection.truncate_queued = false;
                        collection.truncates.clear();
                    }
                }
                // It is out of the index already: it has to be said as soon as it can be.
                Fact::Delete { name, incarnation, waiter: _ } => {
                    self.parked_facts.push(Fact::Delete { name, incarnation, waiter: None });
                }
                // It may have landed where it failed: it is not given up.
                Fact::Flushed(_) => self.parked_facts.push(fact),
                Fact::Announce(..) | Fact::Members => {}
            },
        }
    }

    /// Deletes a collection: it is out of the index at once, a later append creates a new incarnation; `waiter` is
    /// answered when the deletion is durable.
    ///
    /// # Errors
    /// COLLECTION_NOT_FOUND; NO_HEALTHY_DIRECTORY.
    pub(crate) fn delete(
        &mut self,
        name: &CollectionName,
        waiter: ChangeWaiter<Incarnation>,
        now: Instant,
    ) -> Result<(), ApiError> {
        self.check_open()?;
        let collection = self.find(name)?;
        let (incarnation, home) = (collection.incarnation, self.commit_journal(collection.home));
        self.healthy_for_facts(home).ok_or_else(no_directory_for_facts)?;
        if let Some(ix) = self.by_name.remove(name)
            && let Some(collection) = self.collections[ix].as_mut()
        {
            collection.deleted = true;
            // The senders go away: whoever waits for a truncation of what is deleted learns UNKNOWN_OUTCOME.
            collection.truncates.clear();
            collection.changed.notify_waiters();
            self.refuse_flushes(ix);
        }
        self.queue_fact(home, Fact::Delete { name: name.clone(), incarnation, waiter: Some(waiter) }, now);
        Ok(())
    }
}

fn no_directory_for_facts() -> ApiError {
    ApiError::new(Reason::NoHealthyDirectory, "no directory can be written; see /status for what each one needs")
}
