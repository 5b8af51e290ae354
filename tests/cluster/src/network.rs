//! Addresses of a cluster: a block of its own in 198.18.0.0/15, the range that is set aside for tests of networks.
//!
//! Of the four /24 of a block the first is the nodes' (this machine is .1), the second the pods', one half for each
//! node, the third the services'. Everything is routed: this machine reaches pods and services directly, and there is
//! no address translation.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

/// How many blocks there are.
pub(crate) const BLOCKS: u8 = 128;

/// How many nodes a cluster can have.
pub const NODES: u8 = 2;

/// The block of one cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block(u8);

impl Block {
    /// The block of this number; below [`BLOCKS`].
    pub(crate) fn new(number: u8) -> Self {
        assert!(number < BLOCKS, "block {number}");
        Self(number)
    }

    fn network(self, part: u8) -> [u8; 3] {
        let third = u16::from(self.0) * 4 + u16::from(part);
        let [high, low] = third.to_be_bytes();
        [198, 18 + high, low]
    }

    fn address(self, part: u8, last: u8) -> Ipv4Addr {
        let [a, b, c] = self.network(part);
        Ipv4Addr::new(a, b, c, last)
    }

    /// What links and control groups of the cluster are named after.
    #[must_use]
    pub fn name(self) -> String {
        format!("walc{}", self.0)
    }

    /// This machine.
    #[must_use]
    pub fn host(self) -> Ipv4Addr {
        self.address(0, 1)
    }

    /// The node of this number, from 1.
    #[must_use]
    pub fn node(self, node: u8) -> Ipv4Addr {
        self.address(0, node + 1)
    }

    /// The pods of this node.
    #[must_use]
    pub fn pods(self, node: u8) -> String {
        format!("{}/25", self.address(1, (node - 1) * 128))
    }

    /// The pods of all nodes.
    #[must_use]
    pub fn all_pods(self) -> String {
        format!("{}/24", self.address(1, 0))
    }

    /// The services.
    #[must_use]
    pub fn services(self) -> String {
        format!("{}/24", self.address(2, 0))
    }

    /// The service `kubernetes`, always the first.
    #[must_use]
    pub fn first_service(self) -> Ipv4Addr {
        self.address(2, 1)
    }

    /// All of the block.
    #[must_use]
    pub fn whole(self) -> String {
        format!("{}/22", self.address(0, 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_do_not_overlap_and_stay_in_the_range_for_tests() {
        let range = u32::from(Ipv4Addr::new(198, 18, 0, 0))..u32::from(Ipv4Addr::new(198, 20, 0, 0));
        for number in 0..BLOCKS {
            let block = Block::new(number);
            let start = u32::from(block.address(0, 0));
            assert_eq!(start, range.start + u32::from(number) * 1024);
            for address in [block.host(), block.node(NODES), block.first_service(), block.address(1, 255)] {
                assert!((start..start + 1024).contains(&u32::from(address)), "{address} of block {number}");
                assert!(range.contains(&u32::from(address)));
            }
        }
        let block = Block::new(64);
        assert_eq!(block.host(), Ipv4Addr::new(198, 19, 0, 1));
        assert_eq!((block.pods(1), block.pods(2)), ("198.19.1.0/25".to_owned(), "198.19.1.128/25".to_owned()));
        assert_eq!((block.services(), block.whole()), ("198.19.2.0/24".to_owned(), "198.19.0.0/22".to_owned()));
    }
}
