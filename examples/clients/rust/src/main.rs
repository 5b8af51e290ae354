//! Appends three orders, reads them back and truncates: `WALSTORAGE_SOCKET=... cargo run -p walstorage-example-client`.

use futures_util::StreamExt as _;
use walstorage_example_client::Log;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut log = Log::open(&std::env::var("WALSTORAGE_SOCKET")?, "orders-rust")?;
    let appended = log.append([r#"{"order": 1}"#, r#"{"order": 2}"#, r#"{"order": 3}"#]).await?;
    println!("appended LSN {} to {}", appended.first, appended.last);
    let mut entries = log.read(appended.first, false).await?;
    while let Some(entry) = entries.next().await.transpose()? {
        println!("read {}: {}", entry.lsn, String::from_utf8_lossy(&entry.payload));
    }
    println!("truncated to {}", log.truncate(appended.last).await?);
    Ok(())
}
