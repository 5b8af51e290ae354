//! Whether the process is ready: every part that others must wait for holds a [`Gate`], and all must be open.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// The parts of a process, each open or with the reason why not.
#[derive(Debug, Default)]
pub struct Health {
    gates: Mutex<BTreeMap<&'static str, Option<String>>>,
}

/// One part. Closed until it is opened.
#[derive(Clone, Debug)]
pub struct Gate {
    name: &'static str,
    health: Arc<Health>,
}

impl Health {
    /// A process without parts, which is ready.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Adds a part, closed for a reason.
    #[must_use]
    pub fn gate(self: &Arc<Self>, name: &'static str, reason: &str) -> Gate {
        self.gates.lock().insert(name, Some(reason.to_owned()));
        Gate { name, health: Arc::clone(self) }
    }

    /// What `/readyz` says: whether all parts are open, and a line for each.
    #[must_use]
    pub fn report(&self) -> (bool, String) {
        let gates = self.gates.lock();
        let lines = gates.iter().map(|(name, closed)| match closed {
            None => format!("[+] {name}\n"),
            Some(reason) => format!("[-] {name}: {reason}\n"),
        });
        let lines: String = lines.collect();
        let ready = gates.values().all(Option::is_none);
        (ready, lines + if ready { "ready\n" } else { "not ready\n" })
    }
}

impl Gate {
    /// This part is ready.
    pub fn open(&self) {
        self.health.gates.lock().insert(self.name, None);
    }

    /// This part is not ready; says why, for whoever asks `/readyz`.
    pub fn close(&self, reason: impl Into<String>) {
        self.health.gates.lock().insert(self.name, Some(reason.into()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_ready_when_every_part_is() {
        let health = Health::new();
        assert_eq!(health.report(), (true, "ready\n".to_owned()));
        let (schema, caches) = (health.gate("schema", "not checked"), health.gate("caches", "not filled"));
        schema.open();
        assert_eq!(health.report(), (false, "[-] caches: not filled\n[+] schema\nnot ready\n".to_owned()));
        caches.open();
        assert!(health.report().0);
        schema.close("too old");
        assert_eq!(health.report(), (false, "[+] caches\n[-] schema: too old\nnot ready\n".to_owned()));
    }
}
