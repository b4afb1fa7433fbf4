//! Asks before every line it would send. BREAKER_DEFAULT (admit or reject) holds if nobody answers.
use std::{env, io::{stdin, prelude::*, BufReader, Error, ErrorKind, Result}, net::{TcpStream, ToSocketAddrs}, time::Duration};
const WAIT: Duration = Duration::from_millis(250);
fn var(name: &str, default: &str) -> String { env::var(name).unwrap_or(default.into()) }
fn connect() -> Result<BufReader<TcpStream>> {
    let mut places = var("BREAKER_SIDECAR_ADDRESS", "localhost:9100").to_socket_addrs()?;
    let stream = places.find_map(|place| TcpStream::connect_timeout(&place, WAIT).ok()).ok_or(ErrorKind::NotConnected)?;
    stream.set_read_timeout(Some(WAIT))?;
    Ok(BufReader::new(stream))
}
fn ask(kept: &mut Option<BufReader<TcpStream>>) -> Result<String> {
    let mut link = match kept.take() { Some(link) => link, None => connect()? };
    write!(link.get_mut(), "HEAD /allowed/{} HTTP/1.1\r\nHost: localhost\r\n\r\n", var("BREAKER", "default"))?;
    let lines = link.by_ref().lines().take_while(|line| !matches!(line, Ok(text) if text.is_empty()));
    let head = lines.collect::<Result<Vec<_>>>()?;
    *kept = Some(link); // after a whole answer alone is it fit for the next question
    let value = |name: &str| head.iter().find_map(|line| line.split_once(": ").filter(|pair| pair.0.eq_ignore_ascii_case(name)));
    value("X-Breaker").ok_or(Error::from(ErrorKind::NotFound))?; // somebody else, or no such breaker
    Ok(if head[0].contains(" 200 ") { "admit".into() } else { format!("reject {}", value("Retry-After").map_or("", |pair| pair.1)) })
}
fn main() { // a connection that was closed meanwhile is opened anew, once
    let (mut kept, no_answer) = (None, var("BREAKER_DEFAULT", "admit") + " no-answer");
    stdin().lines().for_each(|_message| println!("{}", ask(&mut kept).or_else(|_| { kept = None; ask(&mut kept) }).unwrap_or(no_answer.clone())));
}
