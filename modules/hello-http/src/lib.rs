//! Answers HTTP requests: a greeting, who answers, and what the configuration says.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};

use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{
    Fields, IncomingRequest, Method, OutgoingBody, OutgoingResponse, ResponseOutparam,
};

/// Where configuration is mounted by custom.
const CONFIG: &str = "/etc/config";
/// The largest body that is given back.
const MAX_ECHO: u64 = 16 << 20;

struct Hello;

#[allow(unsafe_code, reason = "the export's symbols are generated")]
mod export {
    use super::Hello;

    wasip2::http::proxy::export!(Hello);
}

struct Answer {
    status: u16,
    body: Vec<u8>,
}

impl Guest for Hello {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let target = request.path_with_query().unwrap_or_else(|| "/".to_owned());
        let path = target.split('?').next().unwrap_or_default();
        let answer = match path {
            "/healthz" => Answer { status: 200, body: b"ok\n".to_vec() },
            "/echo" => echo(&request),
            _ => Answer { status: 200, body: greeting(&request.method(), &target).into_bytes() },
        };
        send(out, answer);
    }
}

fn greeting(method: &Method, target: &str) -> String {
    let word = std::env::var("GREETING").ok().or_else(|| text(&format!("{CONFIG}/greeting")));
    let pod = std::env::var("POD_NAME").or_else(|_| std::env::var("HOSTNAME"));
    let mut page = String::new();
    let _ = writeln!(page, "{} from WebAssembly", word.as_deref().unwrap_or("Hello").trim_end());
    let _ = writeln!(page, "pod: {}", pod.as_deref().unwrap_or("unknown"));
    let _ = writeln!(page, "request: {} {target}", name(method));
    for (name, value) in files() {
        let _ = if is_secret(&name) {
            writeln!(page, "config {name}: {} bytes, not shown", value.len())
        } else {
            writeln!(page, "config {name}: {}", value.trim_end().replace('\n', ", "))
        };
    }
    page
}

/// Whether a name looks like that of a secret; anyone may ask, so its value is not told.
fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    ["PASSWORD", "SECRET", "TOKEN"].iter().any(|word| name.contains(word))
}

fn name(method: &Method) -> &str {
    match method {
        Method::Get => "GET",
        Method::Head => "HEAD",
        Method::Post => "POST",
        Method::Put => "PUT",
        Method::Delete => "DELETE",
        Method::Connect => "CONNECT",
        Method::Options => "OPTIONS",
        Method::Trace => "TRACE",
        Method::Patch => "PATCH",
        Method::Other(other) => other,
    }
}

/// The mounted configuration, by name.
fn files() -> Vec<(String, String)> {
    let Ok(entries) = fs::read_dir(CONFIG) else { return Vec::new() };
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    // Names with two dots are how volumes are updated at one stroke.
    let mut names: Vec<_> = names.filter(|name| !name.starts_with("..")).collect();
    names.sort();
    names.into_iter().filter_map(|name| text(&format!("{CONFIG}/{name}")).map(|text| (name, text))).collect()
}

fn text(path: &str) -> Option<String> {
    fs::read_to_string(path).ok()
}

fn echo(request: &IncomingRequest) -> Answer {
    let mut body = Vec::new();
    if let Ok(incoming) = request.consume() {
        let read = match incoming.stream() {
            Ok(mut stream) => stream.by_ref().take(MAX_ECHO + 1).read_to_end(&mut body),
            Err(()) => Ok(0),
        };
        if read.is_err() {
            return Answer { status: 400, body: b"the body broke off\n".to_vec() };
        }
    }
    if body.len() as u64 > MAX_ECHO {
        return Answer { status: 413, body: b"the body is too large\n".to_vec() };
    }
    Answer { status: 200, body }
}

/// Sends the answer; whoever asked may have gone away, which is no error here.
fn send(out: ResponseOutparam, answer: Answer) {
    let headers = Fields::new();
    let _ = headers.append("content-type", b"text/plain; charset=utf-8");
    let _ = headers.append("content-length", answer.body.len().to_string().as_bytes());
    let response = OutgoingResponse::new(headers);
    let _ = response.set_status_code(answer.status);
    let Ok(body) = response.body() else { return };
    ResponseOutparam::set(out, Ok(response));
    if let Ok(mut stream) = body.write() {
        if stream.write_all(&answer.body).is_ok() {
            let _ = stream.flush();
        }
    }
    let _ = OutgoingBody::finish(body, None);
}
