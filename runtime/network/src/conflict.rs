//! Whether a range is somebody else's already: a machine may run another cluster whose pods
//! have the same addresses, and a local route would take them away.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

/// A route of the machine, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownRoute {
    /// Where it leads.
    pub destination: Ipv4Net,
    /// Whether it makes its destination local to this machine.
    pub local: bool,
    /// Whether an earlier run of this program made it.
    pub ours: bool,
}

/// The first route that overlaps `range` and is not ours. The default route overlaps nothing.
pub fn find<'a>(routes: &'a [KnownRoute], range: &Ipv4Net) -> Option<&'a KnownRoute> {
    routes.iter().find(|route| {
        let destination = route.destination;
        // A route wider than the whole private block is no claim on the range.
        let specific = destination.prefix_len() > 8 && destination.addr() != Ipv4Addr::UNSPECIFIED;
        !route.ours && specific && (destination.contains(range) || range.contains(&destination))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(destination: &str, local: bool, ours: bool) -> KnownRoute {
        KnownRoute { destination: destination.parse().unwrap(), local, ours }
    }

    #[test]
    fn another_clusters_range_is_left_alone() {
        let range = "10.42.0.0/24".parse().unwrap();
        let cases = [
            (route("10.42.0.0/16", false, false), true),
            (route("10.42.0.7/32", false, false), true),
            (route("10.42.0.0/24", true, false), true),
            (route("10.42.0.0/24", true, true), false),
            (route("10.42.1.0/24", false, false), false),
            (route("0.0.0.0/0", false, false), false),
            (route("10.0.0.0/8", false, false), false),
            (route("192.168.1.0/24", false, false), false),
        ];
        for (route, clashes) in cases {
            assert_eq!(find(std::slice::from_ref(&route), &range).is_some(), clashes, "{route:?}");
        }
    }
}
