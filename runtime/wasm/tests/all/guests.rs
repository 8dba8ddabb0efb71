//! Guests as text.

/// A core module with the usual imports, a memory with `data` at 1024, and `$print` (prints
/// `len` bytes at `ptr` to descriptor `fd`).
pub(crate) fn core(data: &str, start: &str) -> String {
    format!(
        r#"(module
          (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
          (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "args_sizes_get" (func $args_sizes (param i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "args_get" (func $args (param i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "environ_sizes_get" (func $env_sizes (param i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "environ_get" (func $env (param i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "path_open"
            (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
          (memory (export "memory") 2)
          (data (i32.const 1024) "{data}")
          (func $print (param $fd i32) (param $ptr i32) (param $len i32)
            (i32.store (i32.const 0) (local.get $ptr))
            (i32.store (i32.const 4) (local.get $len))
            (drop (call $fd_write (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8))))
          (func $recurse (param i32) (result i32)
            (i32.add (i32.const 1) (call $recurse (i32.add (local.get 0) (i32.const 1)))))
          (func (export "_start") {start}))"#
    )
}

/// Prints its data and spins for ever.
pub(crate) fn spinner() -> String {
    core("up\\n", "(call $print (i32.const 1) (i32.const 1024) (i32.const 3)) (loop (br 0))")
}

/// A component of WASI 0.2 that exports `run`; `imports` are component-level, `core` the body
/// of the core module that exports `run`, `with` its instantiation arguments.
pub(crate) fn component(imports: &str, core: &str, with: &str) -> String {
    format!(
        r#"(component
          {imports}
          (core module $m {core})
          (core instance $i (instantiate $m {with}))
          (func $run (result (result)) (canon lift (core func $i "run")))
          (instance $run-instance (export "run" (func $run)))
          (export "wasi:cli/run@0.2.0" (instance $run-instance)))"#
    )
}

/// Exits with a code by WASI 0.2's `exit-with-code`; `code` is what the core module computes.
pub(crate) fn exit_with_code(code: i32) -> String {
    component(
        r#"(import "wasi:cli/exit@0.2.12" (instance $exit
             (export "exit-with-code" (func (param "status-code" u8)))))
           (core func $exit (canon lower (func $exit "exit-with-code")))"#,
        &format!(
            r#"(import "h" "exit" (func $exit (param i32)))
               (func (export "run") (result i32) (call $exit (i32.const {code})) unreachable)"#
        ),
        r#"(with "h" (instance (export "exit" (func $exit))))"#,
    )
}

/// A component of WASI 0.3: `run` returns `result` (0 is ok).
pub(crate) fn p3_command(result: i32) -> String {
    format!(
        r#"(component
          (core module $m
            (import "h" "return" (func $return (param i32)))
            (func (export "run") (result i32) (call $return (i32.const {result})) (i32.const 0))
            (func (export "callback") (param i32 i32 i32) (result i32) unreachable))
          (core func $return (canon task.return (result (result))))
          (core instance $i (instantiate $m (with "h" (instance (export "return" (func $return))))))
          (alias core export $i "callback" (core func $callback))
          (func $run async (result (result))
            (canon lift (core func $i "run") async (callback $callback)))
          (instance $run-instance (export "run" (func $run)))
          (export "wasi:cli/run@0.3.0" (instance $run-instance)))"#
    )
}

/// Waits for the stop request by the lifecycle interface, then exits with 0.
pub(crate) fn waits_for_shutdown() -> String {
    component(
        r#"(import "wasi:io/poll@0.2.0" (instance $poll
             (export "pollable" (type $pollable (sub resource)))
             (export "[method]pollable.block" (func (param "self" (borrow $pollable))))))
           (alias export $poll "pollable" (type $pollable))
           (import "sampan:lifecycle/shutdown@0.1.0" (instance $shutdown
             (alias outer 1 $pollable (type $outer))
             (export "pollable" (type $p (eq $outer)))
             (export "subscribe" (func (result (own $p))))
             (export "requested" (func (result bool)))))
           (core func $subscribe (canon lower (func $shutdown "subscribe")))
           (core func $requested (canon lower (func $shutdown "requested")))
           (core func $block (canon lower (func $poll "[method]pollable.block")))"#,
        r#"(import "h" "subscribe" (func $subscribe (result i32)))
           (import "h" "requested" (func $requested (result i32)))
           (import "h" "block" (func $block (param i32)))
           (func (export "run") (result i32)
             (if (call $requested) (then unreachable))
             (call $block (call $subscribe))
             (if (i32.eqz (call $requested)) (then unreachable))
             (i32.const 0))"#,
        r#"(with "h" (instance
             (export "subscribe" (func $subscribe))
             (export "requested" (func $requested))
             (export "block" (func $block))))"#,
    )
}

/// The types of `wasi:sockets` 0.2 that TCP needs.
const SOCKET_TYPES: &str = r#"
  (export "ipv4-address" (type $v4 (eq $v4-tuple)))
  (export "ipv6-address" (type $v6 (eq $v6-tuple)))
  (type $v4-socket-record (record (field "port" u16) (field "address" $v4)))
  (export "ipv4-socket-address" (type $v4-socket (eq $v4-socket-record)))
  (type $v6-socket-record (record
    (field "port" u16) (field "flow-info" u32) (field "address" $v6) (field "scope-id" u32)))
  (export "ipv6-socket-address" (type $v6-socket (eq $v6-socket-record)))
  (type $socket-variant (variant (case "ipv4" $v4-socket) (case "ipv6" $v6-socket)))
  (export "ip-socket-address" (type $address (eq $socket-variant)))
  (type $family-enum (enum "ipv4" "ipv6"))
  (export "ip-address-family" (type $family (eq $family-enum)))"#;

const TUPLES: &str = r#"
  (type $v4-tuple (tuple u8 u8 u8 u8))
  (type $v6-tuple (tuple u16 u16 u16 u16 u16 u16 u16 u16))"#;

/// The core side of both socket guests. `address` is pushed as port and four octets.
fn socket_core(operation: &str) -> String {
    format!(
        r#"(import "h" "memory" (memory 1))
           (import "h" "exit" (func $exit (param i32)))
           (import "h" "create" (func $create (param i32 i32)))
           (import "h" "local" (func $local (param i32 i32)))
           {operation}
           (func $check (if (i32.load8_u (i32.const 0)) (then
             (call $exit (i32.add (i32.const 100) (i32.load8_u (i32.const 4)))))))"#
    )
}

/// Binds a TCP socket to `address` (WASI 0.2) and exits with the last octet of its local
/// address, or 100 plus the error code.
pub(crate) fn binds_tcp_p2(address: [u8; 4]) -> String {
    tcp_p2(
        "start-bind",
        &format!(
            r#"(func (export "run") (result i32)
                 (call $create (i32.const 0) (i32.const 0)) (call $check)
                 (global.set $socket (i32.load (i32.const 4)))
                 (call $operation {arguments} (i32.const 0)) (call $start-check)
                 (call $local (global.get $socket) (i32.const 0)) (call $check)
                 (call $exit (i32.load8_u (i32.const 13)))
                 (i32.const 0))"#,
            arguments = arguments_p2(0, address)
        ),
    )
}

/// Connects to `address` and `port` (WASI 0.2), waits for the outcome, exits with the last octet
/// of its local address or 100 plus the error code.
pub(crate) fn connects_tcp_p2(address: [u8; 4], port: u16) -> String {
    tcp_p2(
        "start-connect",
        &format!(
            r#"(func (export "run") (result i32)
                 (call $create (i32.const 0) (i32.const 0)) (call $check)
                 (global.set $socket (i32.load (i32.const 4)))
                 (call $operation {arguments} (i32.const 0)) (call $start-check)
                 (loop $again
                   (call $finish (global.get $socket) (i32.const 0))
                   (br_if $again (i32.and
                     (i32.load8_u (i32.const 0))
                     (i32.eq (i32.load8_u (i32.const 4)) (i32.const 8)))))
                 (call $check)
                 (call $local (global.get $socket) (i32.const 0)) (call $check)
                 (call $exit (i32.load8_u (i32.const 13)))
                 (i32.const 0))"#,
            arguments = arguments_p2(port, address)
        ),
    )
}

fn arguments_p2(port: u16, [a, b, c, d]: [u8; 4]) -> String {
    let pushed = [i32::from(port), a.into(), b.into(), c.into(), d.into(), 0, 0, 0, 0, 0, 0];
    let pushed: String = pushed.iter().map(|value| format!("(i32.const {value}) ")).collect();
    format!("(global.get $socket) (call $network) (i32.const 0) {pushed}")
}

fn tcp_p2(operation: &str, run: &str) -> String {
    let imports = format!(
        r#"(import "wasi:io/streams@0.2.0" (instance $streams
             (export "input-stream" (type (sub resource)))
             (export "output-stream" (type (sub resource)))))
           (alias export $streams "input-stream" (type $input))
           (alias export $streams "output-stream" (type $output))
           (import "wasi:sockets/network@0.2.0" (instance $network {TUPLES}
             (export "network" (type (sub resource)))
             (type $codes (enum "unknown" "access-denied" "not-supported" "invalid-argument"
               "out-of-memory" "timeout" "concurrency-conflict" "not-in-progress" "would-block"
               "invalid-state" "new-socket-limit" "address-not-bindable" "address-in-use"
               "remote-unreachable" "connection-refused" "connection-reset" "connection-aborted"
               "datagram-too-large" "name-unresolvable" "temporary-resolver-failure"
               "permanent-resolver-failure"))
             (export "error-code" (type (eq $codes)))
             {SOCKET_TYPES}))
           (alias export $network "network" (type $network-type))
           (alias export $network "error-code" (type $code))
           (alias export $network "ip-socket-address" (type $address))
           (alias export $network "ip-address-family" (type $family))
           (import "wasi:sockets/instance-network@0.2.0" (instance $instance-network
             (alias outer 1 $network-type (type $n))
             (export "network" (type $network (eq $n)))
             (export "instance-network" (func (result (own $network))))))
           (import "wasi:sockets/tcp@0.2.0" (instance $tcp
             (alias outer 1 $network-type (type $n))
             (alias outer 1 $code (type $c))
             (alias outer 1 $address (type $a))
             (alias outer 1 $input (type $in))
             (alias outer 1 $output (type $out))
             (export "network" (type $network (eq $n)))
             (export "error-code" (type $code (eq $c)))
             (export "ip-socket-address" (type $address (eq $a)))
             (export "input-stream" (type $input (eq $in)))
             (export "output-stream" (type $output (eq $out)))
             (export "tcp-socket" (type $socket (sub resource)))
             (export "[method]tcp-socket.start-bind" (func (param "self" (borrow $socket))
               (param "network" (borrow $network)) (param "local-address" $address)
               (result (result (error $code)))))
             (export "[method]tcp-socket.start-connect" (func (param "self" (borrow $socket))
               (param "network" (borrow $network)) (param "remote-address" $address)
               (result (result (error $code)))))
             (export "[method]tcp-socket.finish-connect" (func (param "self" (borrow $socket))
               (result (result (tuple (own $input) (own $output)) (error $code)))))
             (export "[method]tcp-socket.local-address" (func (param "self" (borrow $socket))
               (result (result $address (error $code)))))))
           (alias export $tcp "tcp-socket" (type $socket))
           (import "wasi:sockets/tcp-create-socket@0.2.0" (instance $create
             (alias outer 1 $code (type $c))
             (alias outer 1 $family (type $f))
             (alias outer 1 $socket (type $s))
             (export "error-code" (type $code (eq $c)))
             (export "ip-address-family" (type $family (eq $f)))
             (export "tcp-socket" (type $socket (eq $s)))
             (export "create-tcp-socket" (func (param "address-family" $family)
               (result (result (own $socket) (error $code)))))))
           (import "wasi:cli/exit@0.2.12" (instance $exit
             (export "exit-with-code" (func (param "status-code" u8)))))
           (core module $memory-module (memory (export "memory") 1))
           (core instance $memory (instantiate $memory-module))
           (alias core export $memory "memory" (core memory $mem))
           (core func $exit (canon lower (func $exit "exit-with-code")))
           (core func $network (canon lower (func $instance-network "instance-network")))
           (core func $create (canon lower (func $create "create-tcp-socket") (memory $mem)))
           (core func $operation (canon lower (func $tcp "[method]tcp-socket.{operation}")
             (memory $mem)))
           (core func $finish (canon lower (func $tcp "[method]tcp-socket.finish-connect")
             (memory $mem)))
           (core func $local (canon lower (func $tcp "[method]tcp-socket.local-address")
             (memory $mem)))"#
    );
    let core = socket_core(&format!(
        r#"(import "h" "network" (func $network (result i32)))
           (import "h" "operation" (func $operation
             (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)))
           (import "h" "finish" (func $finish (param i32 i32)))
           (global $socket (mut i32) (i32.const 0))
           (func $start-check (if (i32.load8_u (i32.const 0)) (then
             (call $exit (i32.add (i32.const 100) (i32.load8_u (i32.const 1)))))))
           {run}"#
    ));
    component(
        &imports,
        &core,
        r#"(with "h" (instance
             (export "memory" (memory $mem))
             (export "exit" (func $exit))
             (export "network" (func $network))
             (export "create" (func $create))
             (export "operation" (func $operation))
             (export "finish" (func $finish))
             (export "local" (func $local))))"#,
    )
}

/// Binds a TCP socket to `address` (WASI 0.3) and exits with the last octet of its local
/// address, or 100 plus the error code.
pub(crate) fn binds_tcp_p3([a, b, c, d]: [u8; 4]) -> String {
    let imports = format!(
        r#"(import "wasi:sockets/types@0.3.0" (instance $sockets {TUPLES}
             (type $codes (variant (case "access-denied") (case "not-supported") (case "invalid-argument")
               (case "out-of-memory") (case "timeout") (case "invalid-state")
               (case "address-not-bindable") (case "address-in-use") (case "remote-unreachable")
               (case "connection-refused") (case "connection-broken") (case "connection-reset")
               (case "connection-aborted") (case "datagram-too-large") (case "other" (option string))))
             (export "error-code" (type $code (eq $codes)))
             {SOCKET_TYPES}
             (export "tcp-socket" (type $socket (sub resource)))
             (export "[static]tcp-socket.create" (func (param "address-family" $family)
               (result (result (own $socket) (error $code)))))
             (export "[method]tcp-socket.bind" (func (param "self" (borrow $socket))
               (param "local-address" $address) (result (result (error $code)))))
             (export "[method]tcp-socket.get-local-address" (func (param "self" (borrow $socket))
               (result (result $address (error $code)))))))
           (import "wasi:cli/exit@0.2.12" (instance $exit
             (export "exit-with-code" (func (param "status-code" u8)))))
           (core module $memory-module (memory (export "memory") 1)
             (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 4096)))
           (core instance $memory (instantiate $memory-module))
           (alias core export $memory "memory" (core memory $mem))
           (alias core export $memory "realloc" (core func $realloc))
           (core func $exit (canon lower (func $exit "exit-with-code")))
           (core func $create (canon lower (func $sockets "[static]tcp-socket.create")
             (memory $mem) (realloc $realloc)))
           (core func $bind (canon lower (func $sockets "[method]tcp-socket.bind")
             (memory $mem) (realloc $realloc)))
           (core func $local (canon lower (func $sockets "[method]tcp-socket.get-local-address")
             (memory $mem) (realloc $realloc)))"#
    );
    let core = socket_core(&format!(
        r#"(import "h" "bind" (func $bind
             (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)))
           (global $socket (mut i32) (i32.const 0))
           (func (export "run") (result i32)
             (call $create (i32.const 0) (i32.const 0)) (call $check)
             (global.set $socket (i32.load (i32.const 4)))
             (call $bind (global.get $socket) (i32.const 0) (i32.const 0)
               (i32.const {a}) (i32.const {b}) (i32.const {c}) (i32.const {d})
               (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
               (i32.const 0)) (call $check)
             (call $local (global.get $socket) (i32.const 0)) (call $check)
             (call $exit (i32.load8_u (i32.const 13)))
             (i32.const 0))"#
    ));
    component(
        &imports,
        &core,
        r#"(with "h" (instance
             (export "memory" (memory $mem))
             (export "exit" (func $exit))
             (export "create" (func $create))
             (export "bind" (func $bind))
             (export "local" (func $local))))"#,
    )
}

/// A handler of WASI 0.2. `handle` is the body of a core function with the locals `$out` (the
/// response outparam) and `$n` (how many requests this instance has had, this one included);
/// `$answer` answers with a status.
pub(crate) fn handler(handle: &str) -> String {
    format!(
        r#"(component
          (import "wasi:http/types@0.2.0" (instance $types
            (type $dns (record (field "rcode" (option string)) (field "info-code" (option u16))))
            (export "DNS-error-payload" (type $dns-payload (eq $dns)))
            (type $tls (record (field "alert-id" (option u8)) (field "alert-message" (option string))))
            (export "TLS-alert-received-payload" (type $tls-payload (eq $tls)))
            (type $size (record (field "field-name" (option string)) (field "field-size" (option u32))))
            (export "field-size-payload" (type $field-size (eq $size)))
            (type $codes (variant (case "DNS-timeout") (case "DNS-error" $dns-payload)
              (case "destination-not-found") (case "destination-unavailable")
              (case "destination-IP-prohibited") (case "destination-IP-unroutable")
              (case "connection-refused") (case "connection-terminated") (case "connection-timeout")
              (case "connection-read-timeout") (case "connection-write-timeout")
              (case "connection-limit-reached") (case "TLS-protocol-error")
              (case "TLS-certificate-error") (case "TLS-alert-received" $tls-payload)
              (case "HTTP-request-denied") (case "HTTP-request-length-required")
              (case "HTTP-request-body-size" (option u64)) (case "HTTP-request-method-invalid")
              (case "HTTP-request-URI-invalid") (case "HTTP-request-URI-too-long")
              (case "HTTP-request-header-section-size" (option u32))
              (case "HTTP-request-header-size" (option $field-size))
              (case "HTTP-request-trailer-section-size" (option u32))
              (case "HTTP-request-trailer-size" $field-size) (case "HTTP-response-incomplete")
              (case "HTTP-response-header-section-size" (option u32))
              (case "HTTP-response-header-size" $field-size)
              (case "HTTP-response-body-size" (option u64))
              (case "HTTP-response-trailer-section-size" (option u32))
              (case "HTTP-response-trailer-size" $field-size)
              (case "HTTP-response-transfer-coding" (option string))
              (case "HTTP-response-content-coding" (option string)) (case "HTTP-response-timeout")
              (case "HTTP-upgrade-failed") (case "HTTP-protocol-error") (case "loop-detected")
              (case "configuration-error") (case "internal-error" (option string))))
            (export "error-code" (type $code (eq $codes)))
            (export "fields" (type $fields (sub resource)))
            (export "incoming-request" (type $request (sub resource)))
            (export "outgoing-response" (type $response (sub resource)))
            (export "response-outparam" (type $outparam (sub resource)))
            (export "[constructor]fields" (func (result (own $fields))))
            (export "[constructor]outgoing-response" (func (param "headers" (own $fields))
              (result (own $response))))
            (export "[method]outgoing-response.set-status-code" (func
              (param "self" (borrow $response)) (param "status-code" u16) (result (result))))
            (export "[static]response-outparam.set" (func (param "param" (own $outparam))
              (param "response" (result (own $response) (error $code)))))))
          (alias export $types "incoming-request" (type $request))
          (alias export $types "response-outparam" (type $outparam))
          (core module $memory-module (memory (export "memory") 1)
             (func (export "realloc") (param i32 i32 i32 i32) (result i32) unreachable))
          (core instance $memory (instantiate $memory-module))
          (alias core export $memory "memory" (core memory $mem))
          (alias core export $memory "realloc" (core func $realloc))
          (core func $fields (canon lower (func $types "[constructor]fields")))
          (core func $response (canon lower (func $types "[constructor]outgoing-response")))
          (core func $status (canon lower (func $types "[method]outgoing-response.set-status-code")))
          (core func $set (canon lower (func $types "[static]response-outparam.set")
            (memory $mem) (realloc $realloc)))
          (core module $m
            (import "h" "fields" (func $fields (result i32)))
            (import "h" "response" (func $response (param i32) (result i32)))
            (import "h" "status" (func $status (param i32 i32) (result i32)))
            (import "h" "set" (func $set (param i32 i32 i32 i32 i64 i32 i32 i32 i32)))
            (memory 1)
            (global $count (mut i32) (i32.const 0))
            (func $answer (param $out i32) (param $code i32) (local $r i32)
              (local.set $r (call $response (call $fields)))
              (drop (call $status (local.get $r) (local.get $code)))
              (call $set (local.get $out) (i32.const 0) (local.get $r)
                (i32.const 0) (i64.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)))
            (func (export "handle") (param $in i32) (param $out i32) (local $n i32)
              (global.set $count (i32.add (global.get $count) (i32.const 1)))
              (local.set $n (global.get $count))
              {handle}))
          (core instance $i (instantiate $m (with "h" (instance
            (export "fields" (func $fields))
            (export "response" (func $response))
            (export "status" (func $status))
            (export "set" (func $set))))))
          (func $handle (param "request" (own $request)) (param "response-out" (own $outparam))
            (canon lift (core func $i "handle")))
          (instance $handler (export "handle" (func $handle)))
          (export "wasi:http/incoming-handler@0.2.0" (instance $handler)))"#
    )
}
