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
           (memory 0)
           (func (export "run") (result i32)
             (if (call $requested) (then unreachable))
             (drop (memory.grow (i32.const 1)))
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
    let imports = include_str!("tcp_p2.wat")
        .replace("{TUPLES}", TUPLES)
        .replace("{SOCKET_TYPES}", SOCKET_TYPES)
        .replace("{operation}", operation);
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
    include_str!("handler.wat").replace("HANDLE", handle)
}

/// A handler of WASI 0.3; `handle` is the body of a core function with `$answer` (200 plus the
/// count of requests) and `$refuse` (the error code `HTTP-request-denied`).
pub(crate) fn handler_p3(handle: &str) -> String {
    include_str!("handler_p3.wat").replace("HANDLE", handle)
}
