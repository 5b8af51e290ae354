//! Makes a folder of segments for readers of other languages, and beside each what must be read from it.

use std::path::PathBuf;

use clap::Parser;
use walstorage_tests::segments::by_hand;

/// Makes segments of every kind and codec.
#[derive(Parser)]
struct Arguments {
    /// The folder for them; it must be there.
    folder: PathBuf,
}

fn main() {
    let Arguments { folder } = Arguments::parse();
    let _ = by_hand(&folder);
}
