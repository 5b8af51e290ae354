//! One question to one sidecar. The address is the pod's, so whatever listens there may answer: time and size are bounded,
//! and nothing is followed.

use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, CONNECTION, HOST, USER_AGENT};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Bytes of an answer: many directories and much damage fit.
const LONGEST: usize = 1 << 20;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NoAnswer {
    /// Nobody is there, or says anything in time.
    Unreachable(String),
    /// Somebody is, and does not answer as a sidecar does.
    Unusable(String),
}

/// The body of `GET /status`.
pub(super) async fn status(address: SocketAddr, longest: Duration) -> Result<Bytes, NoAnswer> {
    let unreachable = |error: std::io::Error| NoAnswer::Unreachable(error.to_string());
    let talk = async {
        let stream = TcpStream::connect(address).await.map_err(unreachable)?;
        exchange(stream, address).await
    };
    let in_vain = || NoAnswer::Unreachable(format!("no answer within {} s", longest.as_secs_f32()));
    timeout(longest, talk).await.unwrap_or_else(|_| Err(in_vain()))
}

async fn exchange(stream: TcpStream, address: SocketAddr) -> Result<Bytes, NoAnswer> {
    let unusable = |error: hyper::Error| NoAnswer::Unusable(error.to_string());
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(unusable)?;
    let request = Request::get("/status")
        .header(HOST, address.to_string())
        .header(ACCEPT, "application/json")
        .header(CONNECTION, "close")
        .header(USER_AGENT, concat!("walstorage-operator/", env!("CARGO_PKG_VERSION")))
        .body(Empty::<Bytes>::new())
        .map_err(|error| NoAnswer::Unusable(error.to_string()))?;
    // Owns the sender: once it is through, the connection ends as well.
    let question = async move {
        let response = sender.send_request(request).await.map_err(unusable)?;
        if response.status() != StatusCode::OK {
            return Err(NoAnswer::Unusable(format!("it answers {}", response.status())));
        }
        let body = Limited::new(response.into_body(), LONGEST).collect().await;
        body.map(http_body_util::Collected::to_bytes).map_err(|error| NoAnswer::Unusable(error.to_string()))
    };
    let (answer, _ended) = tokio::join!(question, connection);
    answer
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// So long only a test that fails waits.
    const LONG: Duration = Duration::from_secs(60);

    /// What is made of these bytes, and what was asked.
    async fn answered(bytes: Vec<u8>) -> (Result<Bytes, NoAnswer>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = vec![0; 4096];
            let length = stream.read(&mut asked).await.unwrap();
            asked.truncate(length);
            // Who has heard enough hangs up.
            let _ = stream.write_all(&bytes).await;
            String::from_utf8(asked).unwrap()
        });
        (status(address, LONG).await, server.await.unwrap())
    }

    fn http(head: &str, body: &str) -> Vec<u8> {
        format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
    }

    #[tokio::test]
    async fn the_status_is_asked_for_and_read() {
        let (answer, asked) = answered(http("200 OK", "{}\n")).await;
        assert_eq!(answer, Ok(Bytes::from("{}\n")));
        assert!(asked.starts_with("GET /status HTTP/1.1\r\n") && asked.contains("connection: close"), "{asked}");
    }

    #[tokio::test]
    async fn other_answers_are_told_apart_from_none() {
        let elsewhere = http("302 Found\r\nLocation: http://169.254.169.254/", "");
        let long = http("200 OK", &"x".repeat(LONGEST + 1));
        for (bytes, sentence) in [
            (http("404 Not Found", ""), "it answers 404"),
            (elsewhere, "it answers 302"),
            (long, "limit"),
            (b"220 mail.example ESMTP\r\n".to_vec(), ""),
            (Vec::new(), ""),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf".to_vec(), ""),
        ] {
            let (answer, _) = answered(bytes).await;
            let Err(NoAnswer::Unusable(why)) = answer else { panic!("{answer:?}") };
            assert!(why.contains(sentence), "{why}");
        }
    }

    #[tokio::test]
    async fn nobody_and_somebody_who_says_nothing_are_unreachable() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        // Accepted by the kernel, answered by nobody.
        let silent = status(address, Duration::from_millis(50)).await;
        assert_eq!(silent, Err(NoAnswer::Unreachable("no answer within 0.05 s".to_owned())));
        drop(listener);
        let refused = status(address, LONG).await;
        assert!(matches!(&refused, Err(NoAnswer::Unreachable(why)) if why.contains("refused")), "{refused:?}");
    }
}
