//! A gate before a server: an outage that begins and ends when a test says so.

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Passes connections on to a server while it is open, and breaks them when it closes; ends when dropped.
pub struct Gate {
    /// Where it listens.
    pub address: String,
    open: watch::Sender<bool>,
    _serving: JoinSet<()>,
}

impl Gate {
    /// A gate before the server at `upstream`, open.
    pub async fn before(upstream: &str) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = listener.local_addr().expect("its address").to_string();
        let open = watch::Sender::new(true);
        let (seen, upstream) = (open.subscribe(), upstream.to_owned());
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut client, _)) = listener.accept().await {
                let (mut seen, upstream) = (seen.clone(), upstream.clone());
                connections.spawn(async move {
                    let Ok(mut server) = TcpStream::connect(upstream).await else { return };
                    tokio::select! {
                        _ = copy_bidirectional(&mut client, &mut server) => {}
                        _ = seen.wait_for(|open| !open) => {}
                    }
                });
            }
        });
        Self { address, open, _serving: serving }
    }

    /// Opens or closes it.
    pub fn set_open(&self, open: bool) {
        self.open.send_replace(open);
    }
}
