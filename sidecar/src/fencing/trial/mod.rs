//! What tries the protocol out: the least that makes a log of it, and what was promised to clients. The model steps it in
//! memory, request by request; suites run it against stores over real connections. No process that serves uses it.

pub mod oracle;
pub mod writer;
