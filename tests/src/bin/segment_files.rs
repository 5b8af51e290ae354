//! Makes a folder of segments for readers of other languages, and beside each what must be read from it.

use std::path::PathBuf;

use clap::Parser;
use walstorage_tests::segments::{CODECS, by_hand, by_sidecar};

/// Makes segments of every kind and codec: by hand, and with a sidecar under load.
#[derive(Parser)]
struct Arguments {
    /// The folder for them; it must be there.
    folder: PathBuf,
}

#[tokio::main]
async fn main() {
    let Arguments { folder } = Arguments::parse();
    let _ = by_hand(&folder);
    for codec in CODECS {
        by_sidecar(&folder, codec).await;
    }
}
