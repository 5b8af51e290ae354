//! Which numbers a journal file has had: where no header of a session can be read, the stream in a head tells nothing, so
//! that a file must not get a number again that it had in another session of the same epoch.

/// Which numbers a file had in this epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wear {
    session: u32,
    /// The lowest and highest number in that session.
    here: Option<(u64, u64)>,
    /// The same of all sessions before it.
    before: Option<(u64, u64)>,
}

fn span(one: Option<(u64, u64)>, other: Option<(u64, u64)>) -> Option<(u64, u64)> {
    match (one, other) {
        (Some((a, b)), Some((c, d))) => Some((a.min(c), b.max(d))),
        (one, other) => one.or(other),
    }
}

impl Wear {
    fn before(&self, session: u32) -> Option<(u64, u64)> {
        if session == self.session { self.before } else { span(self.before, self.here) }
    }

    /// Whether the file may become number `file` of `session`.
    pub(crate) fn allows(&self, session: u32, file: u64) -> bool {
        self.before(session).is_none_or(|(lowest, highest)| file < lowest || file > highest)
    }

    /// The wear of the file once it holds frames as number `file` of `session`.
    pub(crate) fn with(&self, session: u32, file: u64) -> Self {
        let here = if session == self.session { self.here } else { None };
        Self { session, here: span(here, Some((file, file))), before: self.before(session) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_never_gets_a_number_again_that_it_had_in_another_session() {
        let fresh = Wear::default();
        assert!(fresh.allows(0, 1) && fresh.allows(7, 1));
        let worn = fresh.with(0, 3).with(0, 5);
        assert!(worn.allows(0, 6), "within a session numbers only rise");
        for (file, allowed) in [(1, true), (2, true), (3, false), (4, false), (5, false), (6, true)] {
            assert_eq!(worn.allows(1, file), allowed, "{file}");
        }
        let later = worn.with(2, 1).with(2, 8);
        for (file, allowed) in [(1, false), (8, false), (9, true)] {
            assert_eq!(later.allows(3, file), allowed, "{file}");
        }
        assert!(!later.allows(2, 4), "what it was in session 0 counts in session 2 too");
    }
}
