//! When certificates are renewed, and in which order: a state machine of what the Secret holds and what was observed.
//!
//! What must survive a new leader stands in the Secret; what does not is only waited for once more.

use std::time::Duration;

/// How long certificates hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// An authority.
    pub authority: Duration,
    /// A leaf.
    pub leaf: Duration,
}

/// How long is waited in a rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waits {
    /// From when the bundle with both authorities was read back until the new leaf is served: other API servers learn of the
    /// bundle a moment later.
    pub settle: Duration,
    /// From when every endpoint was seen on the new leaf until the old authority goes.
    pub overlap: Duration,
}

/// What the Secret holds. Spans are seconds since 1970, from and until.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The authority that signs.
    pub authority: (i64, i64),
    /// The leaf that is served.
    pub leaf: (i64, i64),
    /// The leaf is of that authority, and for the right names.
    pub leaf_fits: bool,
    /// A new authority and a leaf of it are prepared.
    pub next: bool,
    /// The bundle has another authority besides.
    pub overlap: bool,
    /// Somebody asked for a rotation, and none has begun since.
    pub rotate_asked: bool,
}

/// What was seen a moment ago.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observed {
    /// The webhook's configuration has exactly the Secret's bundle; `None` where there is no configuration.
    pub bundle_read_back: Option<bool>,
    /// Every endpoint serves the Secret's leaf.
    pub endpoints_agree: bool,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Write the bundle into the webhook's configuration.
    Publish,
    /// Make a new leaf of the same authority.
    Renew,
    /// Prepare a new authority and a leaf of it, and trust both authorities.
    Begin,
    /// Serve what was prepared.
    Switch,
    /// Trust the new authority only.
    Drop,
    /// Nothing yet.
    Wait,
}

/// The machine. Remembers since when what it waits for has been so.
#[derive(Clone, Debug)]
pub struct Rotation {
    waits: Waits,
    published_since: Option<i64>,
    agreed_since: Option<i64>,
}

impl Rotation {
    /// A machine that has seen nothing.
    #[must_use]
    pub const fn new(waits: Waits) -> Self {
        Self { waits, published_since: None, agreed_since: None }
    }

    /// What to do now, in seconds since 1970.
    pub fn step(&mut self, now: i64, facts: &Facts, observed: Observed) -> Action {
        let Facts { authority, leaf, leaf_fits, next, overlap, rotate_asked } = facts;
        if observed.bundle_read_back == Some(false) {
            self.published_since = None;
            return Action::Publish;
        }
        // A leaf that ends has no time for a rotation that is stuck.
        if !leaf_fits || is_late(*leaf, now) {
            return Action::Renew;
        }
        if *next {
            if observed.bundle_read_back.is_none() {
                self.published_since = None;
                return Action::Wait;
            }
            let since = *self.published_since.get_or_insert(now);
            return if passed(since, self.waits.settle, now) { Action::Switch } else { Action::Wait };
        }
        self.published_since = None;
        if *overlap {
            if !observed.endpoints_agree {
                self.agreed_since = None;
                return Action::Wait;
            }
            let since = *self.agreed_since.get_or_insert(now);
            return if passed(since, self.waits.overlap, now) { Action::Drop } else { Action::Wait };
        }
        self.agreed_since = None;
        if *rotate_asked || is_late(*authority, now) { Action::Begin } else { Action::Wait }
    }
}

/// Whether a third of its time or less is left.
fn is_late((from, until): (i64, i64), now: i64) -> bool {
    until.saturating_sub(now) <= until.saturating_sub(from) / 3
}

fn passed(since: i64, wait: Duration, now: i64) -> bool {
    now.saturating_sub(since) >= i64::try_from(wait.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::issue;
    use super::super::material::Material;
    use super::*;

    const DAY: i64 = 86_400;
    const START: i64 = 1_800_000_000;
    const WAITS: Waits = Waits { settle: Duration::from_secs(10), overlap: Duration::from_secs(600) };
    const LIFE: Life = Life { authority: Duration::from_secs(365 * 86_400), leaf: Duration::from_secs(30 * 86_400) };

    fn steady() -> Facts {
        Facts {
            authority: (START, START + 365 * DAY),
            leaf: (START, START + 30 * DAY),
            leaf_fits: true,
            next: false,
            overlap: false,
            rotate_asked: false,
        }
    }

    const SEEN: Observed = Observed { bundle_read_back: Some(true), endpoints_agree: true };

    #[test]
    fn a_leaf_is_renewed_when_a_third_of_its_time_is_left_and_an_authority_likewise() {
        let step = |now: i64, facts: Facts| Rotation::new(WAITS).step(now, &facts, SEEN);
        assert_eq!(step(START, steady()), Action::Wait);
        assert_eq!(step(START + 20 * DAY - 1, steady()), Action::Wait);
        assert_eq!(step(START + 20 * DAY, steady()), Action::Renew);
        assert_eq!(step(START, Facts { leaf_fits: false, ..steady() }), Action::Renew);
        assert_eq!(step(START, Facts { rotate_asked: true, ..steady() }), Action::Begin);
        let leaf = (START + 240 * DAY, START + 270 * DAY);
        assert_eq!(step(START + 243 * DAY, Facts { leaf, ..steady() }), Action::Wait);
        assert_eq!(step(START + 244 * DAY, Facts { leaf, ..steady() }), Action::Begin);
    }

    #[test]
    fn a_new_leaf_is_served_only_after_a_bundle_with_both_was_read_back_for_a_while() {
        let mut rotation = Rotation::new(WAITS);
        let facts = Facts { next: true, overlap: true, ..steady() };
        let unpublished = Observed { bundle_read_back: Some(false), ..SEEN };
        assert_eq!(rotation.step(START, &facts, unpublished), Action::Publish);
        assert_eq!(rotation.step(START + 1, &facts, SEEN), Action::Wait);
        assert_eq!(rotation.step(START + 10, &facts, SEEN), Action::Wait);
        // Somebody overwrites it: from the beginning.
        assert_eq!(rotation.step(START + 10, &facts, unpublished), Action::Publish);
        assert_eq!(rotation.step(START + 11, &facts, SEEN), Action::Wait);
        assert_eq!(rotation.step(START + 20, &facts, SEEN), Action::Wait);
        assert_eq!(rotation.step(START + 21, &facts, SEEN), Action::Switch);
        // Nobody knows what the API server trusts.
        let mut rotation = Rotation::new(WAITS);
        for second in 0..1000 {
            let observed = Observed { bundle_read_back: None, ..SEEN };
            assert_eq!(rotation.step(START + second, &facts, observed), Action::Wait);
        }
    }

    #[test]
    fn an_old_authority_goes_only_after_every_endpoint_was_seen_on_the_new_leaf_for_a_while() {
        let mut rotation = Rotation::new(WAITS);
        let facts = Facts { overlap: true, rotate_asked: true, ..steady() };
        let behind = Observed { endpoints_agree: false, ..SEEN };
        assert_eq!(rotation.step(START, &facts, behind), Action::Wait);
        assert_eq!(rotation.step(START + 1, &facts, SEEN), Action::Wait);
        assert_eq!(rotation.step(START + 599, &facts, SEEN), Action::Wait);
        assert_eq!(rotation.step(START + 600, &facts, behind), Action::Wait);
        assert_eq!(rotation.step(START + 601, &facts, SEEN), Action::Wait);
        assert_eq!(rotation.step(START + 1201, &facts, SEEN), Action::Drop);
        assert_eq!(
            rotation.step(START + 1202, &Facts { overlap: false, ..facts }, SEEN),
            Action::Begin,
            "asked meanwhile"
        );
    }

    #[test]
    fn a_stuck_rotation_does_not_let_the_leaf_end() {
        let mut rotation = Rotation::new(WAITS);
        let facts = Facts { overlap: true, ..steady() };
        let behind = Observed { endpoints_agree: false, ..SEEN };
        assert_eq!(rotation.step(START + 20 * DAY, &facts, behind), Action::Renew);
    }

    /// A cluster with one API server and two replicas, each of which learns of a change some time later, over two years of
    /// a virtual clock. A new leader comes every few days, and remembers nothing.
    #[test]
    fn for_two_years_the_api_server_trusts_whatever_is_served() {
        let names = vec!["walstorage-webhook.walstorage.svc".to_owned()];
        let mut material = Material::create(&names, START, LIFE).unwrap();
        let (mut trusted, mut served) = (String::new(), [material.clone(), material.clone()]);
        let (mut rotation, mut rotations, mut renewals) = (Rotation::new(WAITS), 0, 0);
        let (mut now, mut asked) = (START, false);
        let mut random = 88_172_645_463_325_252_u64;
        while now < START + 730 * DAY {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            asked |= random.is_multiple_of(4000);
            if random % 500 == 1 {
                rotation = Rotation::new(WAITS);
            }
            // Replicas read the Secret again within a minute or so; they may also lag for longer.
            if random.is_multiple_of(3) {
                served[0] = material.clone();
            }
            if random.is_multiple_of(5) {
                served[1] = material.clone();
            }
            let observed = Observed {
                bundle_read_back: Some(trusted == material.bundle()),
                endpoints_agree: served.iter().all(|replica| replica.leaf == material.leaf),
            };
            let facts = material.facts(&names, now, asked).unwrap();
            material = match rotation.step(now, &facts, observed) {
                Action::Wait => {
                    now += if facts.next || facts.overlap { 30 } else { 3600 };
                    continue;
                }
                Action::Publish => {
                    trusted = material.bundle();
                    material
                }
                Action::Renew => {
                    renewals += 1;
                    material.renewed(&names, now, LIFE).unwrap()
                }
                Action::Begin => {
                    rotations += 1;
                    asked = false;
                    material.begun(&names, now, LIFE).unwrap()
                }
                Action::Switch => material.switched(),
                Action::Drop => material.dropped(),
            };
            now += 1;
            if !trusted.is_empty() {
                for replica in &served {
                    let verified = issue::verify(&replica.leaf.certificate, &trusted, now);
                    assert_eq!(verified, Ok(()), "day {}", (now - START) / DAY);
                }
            }
        }
        assert!(rotations >= 3 && renewals >= 20, "{rotations} rotations, {renewals} renewals");
    }
}
