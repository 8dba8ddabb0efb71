//! Machines made of network namespaces, on one bridge; one more behind a NAT.
//!
//! Names carry this process's id, so that labs side by side do not meet.

use crate::node::BenchError;
use crate::process::run;

/// What the lab's addresses begin with.
const NET: &str = "10.77";
/// The machine at the bridge is the one that runs this program.
const HERE: u8 = 254;

/// A bridge and the machines on it; all gone when dropped.
pub(crate) struct Lab {
    tag: String,
    /// Third byte of the addresses, so that labs side by side do not meet.
    net: u8,
    machines: Vec<Machine>,
    router: Option<String>,
}

/// A network namespace with one interface, `eth0`.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) namespace: String,
    /// The end of its cable at the bridge, or at the router.
    cable: String,
    pub(crate) address: String,
    behind_nat: bool,
}

impl Lab {
    pub(crate) fn new() -> Result<Self, BenchError> {
        if !rustix::process::geteuid().is_root() {
            return Err(BenchError::Failed("network namespaces need root".to_owned()));
        }
        let pid = std::process::id();
        let lab = Self {
            tag: format!("sp{:x}", pid & 0xf_ffff),
            net: u8::try_from(pid % 250).unwrap_or(0),
            machines: Vec::new(),
            router: None,
        };
        let bridge = lab.bridge();
        run("ip", &["link", "add", &bridge, "type", "bridge"])?;
        run("ip", &["addr", "add", &format!("{}/24", lab.address(HERE)), "dev", &bridge])?;
        run("ip", &["link", "set", &bridge, "up"])?;
        Ok(lab)
    }

    fn bridge(&self) -> String {
        format!("{}b", self.tag)
    }

    pub(crate) fn address(&self, last: u8) -> String {
        format!("{NET}.{}.{last}", self.net)
    }

    /// A machine on the bridge.
    pub(crate) fn machine(&mut self) -> Result<Machine, BenchError> {
        let number = u8::try_from(self.machines.len() + 1).unwrap_or(u8::MAX);
        let bridge = self.bridge();
        let machine = self.plug(number, self.address(number), self.address(HERE), None)?;
        run("ip", &["link", "set", &machine.cable, "master", &bridge, "up"])?;
        Ok(machine)
    }

    /// A machine behind a router that hides it (masquerading).
    pub(crate) fn machine_behind_nat(&mut self) -> Result<Machine, BenchError> {
        let outer = self.machine()?;
        let router = outer.namespace;
        let inside = |last: u8| format!("10.78.{}.{last}", self.net);
        let (inner, gateway) = (inside(2), inside(1));
        let number = u8::try_from(self.machines.len() + 1).unwrap_or(u8::MAX);
        let machine = self.plug(number, inner, gateway.clone(), Some(&router))?;
        run("ip", &["-n", &router, "addr", "add", &format!("{gateway}/24"), "dev", &machine.cable])?;
        run("ip", &["-n", &router, "link", "set", &machine.cable, "up"])?;
        run("ip", &["netns", "exec", &router, "sysctl", "-qw", "net.ipv4.ip_forward=1"])?;
        self.router = Some(router);
        self.masquerade()?;
        Ok(machine)
    }

    fn masquerade(&self) -> Result<(), BenchError> {
        let Some(router) = &self.router else { return Ok(()) };
        let rules = "add table ip nat; add chain ip nat post { type nat hook postrouting priority 100; }; \
                     add rule ip nat post oifname \"eth0\" masquerade random";
        run("ip", &["netns", "exec", router, "nft", rules]).map(drop)
    }

    /// The router forgets whom it knew and shows its machine under other ports and another address.
    pub(crate) fn rebind_nat(&self, round: usize) -> Result<(), BenchError> {
        let Some(router) = &self.router else { return Ok(()) };
        let outer = self.address(if round.is_multiple_of(2) { 200 } else { 201 });
        let rules = format!(
            "flush chain ip nat post; \
             add rule ip nat post oifname \"eth0\" meta l4proto {{ tcp, udp }} snat to {outer}:20000-60000 random"
        );
        drop(run("ip", &["-n", router, "addr", "add", &format!("{outer}/24"), "dev", "eth0"]));
        run("ip", &["netns", "exec", router, "nft", &rules])?;
        // Known flows would keep their old form: the interface's going away forgets them.
        run("ip", &["-n", router, "link", "set", "eth0", "down"])?;
        run("ip", &["-n", router, "link", "set", "eth0", "up"])?;
        run("ip", &["-n", router, "route", "replace", "default", "via", &self.address(HERE)]).map(drop)
    }

    fn plug(
        &mut self,
        number: u8,
        address: String,
        gateway: String,
        router: Option<&str>,
    ) -> Result<Machine, BenchError> {
        let namespace = format!("{}-{number}", self.tag);
        let cable = format!("{}c{number}", self.tag);
        run("ip", &["netns", "add", &namespace])?;
        let machine = Machine {
            namespace: namespace.clone(),
            cable: cable.clone(),
            address,
            behind_nat: router.is_some(),
        };
        self.machines.push(machine.clone());
        run("ip", &["link", "add", &cable, "type", "veth", "peer", "name", "eth0", "netns", &namespace])?;
        if let Some(router) = router {
            run("ip", &["link", "set", &cable, "netns", router])?;
        }
        run("ip", &["-n", &namespace, "link", "set", "lo", "up"])?;
        run("ip", &["-n", &namespace, "link", "set", "eth0", "up"])?;
        machine.give(&machine.address, &gateway)?;
        Ok(machine)
    }

    /// The machine is reached at another address from now on.
    pub(crate) fn move_to(&self, machine: &mut Machine, last: u8) -> Result<(), BenchError> {
        let address = self.address(last);
        run("ip", &["-n", &machine.namespace, "addr", "flush", "dev", "eth0"])?;
        machine.give(&address, &self.address(HERE))?;
        machine.address = address;
        Ok(())
    }
}

impl Machine {
    fn give(&self, address: &str, gateway: &str) -> Result<(), BenchError> {
        run("ip", &["-n", &self.namespace, "addr", "add", &format!("{address}/24"), "dev", "eth0"])?;
        run("ip", &["-n", &self.namespace, "route", "replace", "default", "via", gateway]).map(drop)
    }

    /// Pulls the plug, or puts it back.
    pub(crate) fn plugged(&self, plugged: bool) -> Result<(), BenchError> {
        debug_assert!(!self.behind_nat, "its cable is in the router");
        run("ip", &["link", "set", &self.cable, if plugged { "up" } else { "down" }]).map(drop)
    }

    /// Drops what comes from other machines, or what goes to them; everything of this program's
    /// still passes.
    pub(crate) fn drop_one_way(&self, incoming: bool, lab: &Lab) -> Result<(), BenchError> {
        let (hook, side) = if incoming { ("input", "saddr") } else { ("output", "daddr") };
        let here = lab.address(HERE);
        let net = format!("{NET}.{}.0/24", lab.net);
        let rules = format!(
            "add table ip cut; add chain ip cut c {{ type filter hook {hook} priority 0; }}; \
             add rule ip cut c ip {side} {here} accept; add rule ip cut c ip {side} {net} drop"
        );
        run("ip", &["netns", "exec", &self.namespace, "nft", &rules]).map(drop)
    }

    pub(crate) fn pass_both_ways(&self) -> Result<(), BenchError> {
        run("ip", &["netns", "exec", &self.namespace, "nft", "delete table ip cut"]).map(drop)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for machine in &self.machines {
            if let Err(error) = run("ip", &["netns", "del", &machine.namespace]) {
                println!("{error}");
            }
        }
        if let Err(error) = run("ip", &["link", "del", &self.bridge()]) {
            println!("{error}");
        }
    }
}
