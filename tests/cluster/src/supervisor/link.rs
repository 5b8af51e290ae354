//! What a cluster needs of this machine's network: a block of addresses and a bridge to its nodes.

use std::fs::File;
use std::path::Path;

use anyhow::{Result, bail};
use rustix::fs::{FlockOperation, flock};

use crate::network::{BLOCKS, Block, NODES};
use crate::process::run;

/// Locks of blocks: of the machine, as all of its users share its addresses.
const LOCKS: &str = "/run/walstorage-test-clusters";

/// A block with its bridge and routes, removed on drop.
#[derive(Debug)]
pub(super) struct Link {
    block: Block,
    _lock: File,
}

impl Link {
    /// Takes the first block that nobody uses.
    pub(super) fn create() -> Result<Self> {
        std::fs::create_dir_all(LOCKS)?;
        for number in 0..BLOCKS {
            let lock = File::create(Path::new(LOCKS).join(number.to_string()))?;
            if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
                continue;
            }
            let block = Block::new(number);
            // A killed supervisor leaves its bridge; who holds the lock may remove it.
            let _ = run("ip", &["link", "del", &block.name()]);
            if run("ip", &["route", "show", "root", &block.whole()])?.trim().is_empty() {
                let link = Self { block, _lock: lock };
                link.set_up()?;
                return Ok(link);
            }
        }
        bail!("all {BLOCKS} blocks of addresses are in use")
    }

    fn set_up(&self) -> Result<()> {
        let (block, bridge) = (self.block, self.block.name());
        run("ip", &["link", "add", &bridge, "type", "bridge"])?;
        run("ip", &["addr", "add", &format!("{}/24", block.host()), "dev", &bridge])?;
        run("ip", &["link", "set", &bridge, "up"])?;
        run("ip", &["route", "add", &block.services(), "via", &block.node(1).to_string()])?;
        for node in 1..=NODES {
            run("ip", &["route", "add", &block.pods(node), "via", &block.node(node).to_string()])?;
        }
        Ok(())
    }

    pub(super) fn block(&self) -> Block {
        self.block
    }

    /// The end of a node's link on this side.
    fn end(&self, node: u8) -> String {
        format!("{}n{node}", self.block.name())
    }

    /// Gives the network namespace of process `init` an interface `eth0` at the bridge. It goes with the namespace.
    pub(super) fn attach(&self, node: u8, init: u32) -> Result<()> {
        let bridge = self.block.name();
        let end = self.end(node);
        // After a power cut the kernel may not have let go of the last one yet.
        let _ = run("ip", &["link", "del", &end]);
        run("ip", &["link", "add", &end, "type", "veth", "peer", "name", "eth0", "netns", &init.to_string()])?;
        run("ip", &["link", "set", &end, "master", &bridge])?;
        run("ip", &["link", "set", &end, "up"])?;
        Ok(())
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // They go with the namespaces of their nodes, which the kernel may let go of much later.
        for node in 1..=NODES {
            let _ = run("ip", &["link", "del", &self.end(node)]);
        }
        // Its routes go with it.
        if let Err(error) = run("ip", &["link", "del", &self.block.name()]) {
            eprintln!("{error:#}");
        }
    }
}
