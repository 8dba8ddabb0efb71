//! Several servers with one database: joining, the loss of a leader, members, mistakes.

use crate::machine::{Machine, first, joined, leader, reads, three, wait_for_voters, write};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_servers_survive_the_loss_of_any_one() {
    let mut servers = three().await;
    write(&servers[1], "before").await;
    for server in &servers {
        assert!(reads(server, "before").await, "{} reads what another wrote at once", server.name);
    }
    let figures = async |server: &Machine| {
        let request = http::Request::get("/metrics").body(Vec::new()).unwrap();
        server.client().await.request_text(request).await.unwrap()
    };
    let leading = leader(&servers, &servers[0]);
    let text = figures(&servers[leading]).await;
    for part in ["sampan_server_has_leader 1", "sampan_server_is_leader 1", "sampan_network_active_peers{to="]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    let text = figures(&servers[(leading + 1) % 3]).await;
    assert!(
        text.contains("sampan_server_is_leader 0") && text.contains("sampan_disk_fsyncs_total "),
        "{text}"
    );
    for round in 0..3 {
        let lost = leader(&servers, &servers[round]);
        servers[lost].kill();
        let (a, b) = ((lost + 1) % 3, (lost + 2) % 3);
        let name = format!("without-{round}");
        write(&servers[a], &name).await;
        assert!(reads(&servers[b], &name).await);
        servers[lost].start().await;
        assert!(reads(&servers[lost], &name).await, "the server that was lost has caught up");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_leader_hands_over_and_a_whole_cluster_comes_back() {
    let mut servers = three().await;
    write(&servers[0], "kept").await;
    let stopped = leader(&servers, &servers[0]);
    servers[stopped].stop();
    let other = (stopped + 1) % 3;
    write(&servers[other], "meanwhile").await;
    for server in &mut servers {
        server.kill();
    }
    // None of them is ready before a second one is there.
    for server in &mut servers {
        server.spawn();
    }
    for server in &servers {
        write(server, "again").await;
        assert!(reads(server, "kept").await && reads(server, "meanwhile").await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_member_stays_out_and_two_lost_servers_are_survived_by_force() {
    let mut servers = three().await;
    write(&servers[2], "kept").await;
    let text = servers[0].ok(&["member", "remove", "s3"]);
    assert!(text.contains("s3"), "{text}");
    wait_for_voters(&servers[0], 2).await;
    let last = servers[2].ended();
    assert!(last.contains("removed"), "{last}");
    let again = servers[2].refused();
    assert!(again.contains("removed"), "{again}");

    // The other of the two is lost for good: the survivor goes on by force, with all it had.
    servers[1].kill();
    servers[0].stop();
    servers[0].set_arguments(&[
        "server",
        "--disable-agent",
        "--bind-address",
        "127.0.0.1",
        "--force-new-cluster",
    ]);
    servers[0].start().await;
    wait_for_voters(&servers[0], 1).await;
    assert!(reads(&servers[0], "kept").await);
    write(&servers[0], "alone").await;
    let newcomer = joined("s4", &servers[0]).await;
    assert!(reads(&newcomer, "alone").await);

    // Left in the unit it does not act again: the newcomer would be thrown out.
    wait_for_voters(&servers[0], 2).await;
    servers[0].stop();
    servers[0].start().await;
    assert!(servers[0].errors().contains("is left aside now"), "{}", servers[0].errors());
    write(&newcomer, "together").await;
    assert!(reads(&servers[0], "together").await);
    wait_for_voters(&servers[0], 2).await;

    let empty = Machine::server("s5", &["--force-new-cluster"]);
    assert!(empty.refused().contains("holds no database"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mistakes_at_joining_are_one_line_and_leave_nothing() {
    let server = first(&[]).await;
    let other = first(&[]).await;
    let url = server.url();
    let good = server.token("server");
    let revoked = server.token("server");
    let id = revoked.rsplit_once(':').unwrap().1.split_once('.').unwrap().0;
    server.ok(&["token", "revoke", id]);
    let foreign = other.token("server");
    let agent = server.token("agent");
    let wrong = format!("{}wrong", good.rsplit_once('.').unwrap().0.to_owned() + ".");
    for (token, part) in [
        (wrong.as_str(), "token"),
        (revoked.as_str(), "token"),
        (agent.as_str(), "agent"),
        (foreign.as_str(), "another cluster"),
        ("nonsense", "token"),
    ] {
        let machine = Machine::server("s2", &["--server", &url, "--token", token]);
        let line = machine.refused();
        assert!(line.to_lowercase().contains(part), "{token}: {line}");
        let left = std::fs::read_dir(machine.data_dir()).map_or(0, Iterator::count);
        assert_eq!(left, 0, "nothing is left of {token}: {line}");
    }
    let machine = Machine::server("s1", &["--server", &url, "--token", &good]);
    let line = machine.refused();
    assert!(line.contains("s1") && line.contains("--node-name"), "a name that is taken: {line}");
    let machine = Machine::server("s2", &["--server", &url]);
    assert!(machine.refused().contains("--token"));
}
