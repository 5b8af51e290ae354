//! The order of a stream's replies: per collection they come in the order of the requests, whatever order the engine
//! answers in (a BUFFERED append, or a duplicate, may be answered before an earlier DURABLE one). Collections do not wait
//! for each other. Pure.

use std::collections::{HashMap, VecDeque};

use crate::types::CollectionName;

/// Queues of collections without requests under way are dropped when there are more than this.
const KEEP_QUEUES: usize = 64;

/// Requests under way on one stream. `R` is a reply.
#[derive(Debug)]
pub(crate) struct Replies<R> {
    /// Token of the first slot.
    base: u64,
    slots: VecDeque<Slot<R>>,
    /// Tokens of unanswered requests, per collection.
    queues: HashMap<CollectionName, VecDeque<u64>>,
}

#[derive(Debug)]
struct Slot<R> {
    collection: CollectionName,
    state: State<R>,
}

#[derive(Debug)]
enum State<R> {
    UnderWay,
    Held(R),
    Answered,
}

impl<R> Replies<R> {
    pub(crate) fn new() -> Self {
        Self { base: 0, slots: VecDeque::new(), queues: HashMap::new() }
    }

    /// Adds a request and gives it its token.
    pub(crate) fn submitted(&mut self, collection: CollectionName) -> u64 {
        let token = self.base + self.slots.len() as u64;
        if let Some(queue) = self.queues.get_mut(collection.as_str()) {
            queue.push_back(token);
        } else {
            if self.queues.len() >= KEEP_QUEUES {
                self.queues.retain(|_, queue| !queue.is_empty());
            }
            self.queues.insert(collection.clone(), VecDeque::from([token]));
        }
        self.slots.push_back(Slot { collection, state: State::UnderWay });
        token
    }

    /// Takes back the newest request: the engine refused it.
    pub(crate) fn refused(&mut self, token: u64) {
        debug_assert_eq!(token + 1, self.base + self.slots.len() as u64);
        if let Some(slot) = self.slots.pop_back()
            && let Some(queue) = self.queues.get_mut(slot.collection.as_str())
        {
            queue.pop_back();
        }
    }

    /// Requests that are not answered yet.
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Adds the reply of a request and puts into `ready` every reply whose turn has come.
    pub(crate) fn answered(&mut self, token: u64, reply: R, ready: &mut VecDeque<R>) {
        self.settle(token, Some(reply), ready);
    }

    /// Notes that a request ends without a reply; later ones of its collection need not wait for it.
    pub(crate) fn failed(&mut self, token: u64, ready: &mut VecDeque<R>) {
        self.settle(token, None, ready);
    }

    fn settle(&mut self, token: u64, reply: Option<R>, ready: &mut VecDeque<R>) {
        let Some(slot) = token.checked_sub(self.base).and_then(|at| self.slots.get_mut(at as usize)) else { return };
        let Some(queue) = self.queues.get_mut(slot.collection.as_str()) else { return };
        match reply {
            Some(reply) => slot.state = State::Held(reply),
            None => {
                slot.state = State::Answered;
                queue.retain(|waiting| *waiting != token);
            }
        }
        while let Some(&first) = queue.front()
            && let Some(slot) = self.slots.get_mut((first - self.base) as usize)
            && matches!(slot.state, State::Held(_))
        {
            if let State::Held(reply) = std::mem::replace(&mut slot.state, State::Answered) {
                ready.push_back(reply);
            }
            queue.pop_front();
        }
        while let Some(Slot { state: State::Answered, .. }) = self.slots.front() {
            self.slots.pop_front();
            self.base += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(n: u8) -> CollectionName {
        CollectionName::new(&format!("c{n}")).unwrap()
    }

    #[test]
    fn an_early_answer_waits_for_its_collection_only() {
        let (mut replies, mut ready) = (Replies::new(), VecDeque::new());
        let a1 = replies.submitted(name(1));
        let b1 = replies.submitted(name(2));
        let a2 = replies.submitted(name(1));
        replies.answered(a2, "a2", &mut ready);
        assert!(ready.is_empty());
        replies.answered(b1, "b1", &mut ready);
        assert_eq!(ready, ["b1"]);
        replies.answered(a1, "a1", &mut ready);
        assert_eq!(ready, ["b1", "a1", "a2"]);
        assert_eq!(replies.len(), 0);
    }

    #[test]
    fn a_failed_request_holds_nobody_up() {
        let (mut replies, mut ready) = (Replies::new(), VecDeque::new());
        let a1 = replies.submitted(name(1));
        let a2 = replies.submitted(name(1));
        replies.answered(a2, "a2", &mut ready);
        replies.failed(a1, &mut ready);
        assert_eq!(ready, ["a2"]);
        assert_eq!(replies.len(), 0);
    }

    proptest! {
        #[test]
        fn every_reply_comes_once_and_in_order_per_collection(
            requests in prop::collection::vec((0u8..4, any::<u16>()), 1..200),
        ) {
            let (mut replies, mut ready) = (Replies::new(), VecDeque::new());
            let mut under_way: Vec<(u16, u64, (u8, usize))> = Vec::new();
            for (i, (collection, when)) in requests.iter().enumerate() {
                let token = replies.submitted(name(*collection));
                if i % 7 == 6 {
                    replies.refused(token);
                } else {
                    under_way.push((*when, token, (*collection, i)));
                }
                if i % 3 == 0 && !under_way.is_empty() {
                    let (_, token, reply) = under_way.swap_remove(*when as usize % under_way.len());
                    replies.answered(token, reply, &mut ready);
                }
            }
            under_way.sort_unstable();
            for (_, token, reply) in under_way {
                replies.answered(token, reply, &mut ready);
            }
            prop_assert_eq!(replies.len(), 0);
            prop_assert_eq!(ready.len(), requests.len() - requests.len() / 7);
            for collection in 0..4 {
                let order: Vec<usize> = ready.iter().filter(|r| r.0 == collection).map(|r| r.1).collect();
                prop_assert!(order.is_sorted());
            }
        }
    }
}
