//! The hook `mpi` under Slurm: ranks on several nodes, on the host's MPI.

use sarus_integration_tests::{Cluster, Invocation, Runtime, Who, copy_stack, debian_with};

use crate::hook_mpi::{configure, joined, libs};
use crate::{Ground, in_mode};

in_mode!(
    as_user_with_crun,
    User,
    Crun,
    ranks_on_several_nodes_run_on_the_hosts_mpi,
    ranks_of_open_mpi_run_on_the_hosts
);
in_mode!(as_user_with_runc, User, Runc, ranks_on_several_nodes_run_on_the_hosts_mpi);

/// `srun` of `hello` on two nodes with two ranks each, and what the ranks said.
fn four_ranks(site: &(Cluster, Ground), mpi: &str, options: &[&str]) -> Vec<String> {
    let (cluster, ground) = site;
    let srun = ["-N2", "--ntasks-per-node=2", mpi];
    let words = ["sarus", "run", "--runtime", ground.runtime.name()];
    let step: Invocation = cluster.srun(&ground.session, srun).args(words).args(options);
    let output = step.args([ground.image.as_str(), "hello"]).run();
    let mut lines: Vec<String> = output.ok().lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines.len(), 4, "{output}");
    for (rank, line) in lines.iter().enumerate() {
        assert!(line.starts_with(&format!("rank {rank} of 4: ")), "{output}");
    }
    lines
}

fn ranks_on_several_nodes_run_on_the_hosts_mpi(who: Who, runtime: Runtime) {
    let ground = Ground::with(who, runtime, &debian_with("mpich"));
    let site = (Cluster::start(&ground.session, 2), ground);
    let session = &site.1.session;
    let [impi, mpich] = ["impi", "mpich-5.0.2"].map(|name| copy_stack(session, name).join("lib"));
    // Intel's opens a libfabric by name.
    let fabric = format!("MPI_DEPENDENCY_LIBS={}", joined(&mpich, &["mpich/libfabric.so.1"]));
    for (variables, want) in [
        (vec![libs(&mpich, &["libmpi.so.12"])], "5.0.2"),
        (vec![libs(&impi, &["libmpi.so.12"]), fabric], "Intel(R) MPI Library 2021.19"),
    ] {
        configure(session, &variables);
        let options = ["--mpi", "-e", "MPIR_CVAR_CH4_NETMOD=ofi", "-e", "FI_PROVIDER=tcp"];
        let lines = four_ranks(&site, "--mpi=pmi2", &options);
        assert!(lines.iter().all(|line| line.contains(want)), "{lines:?}");
    }
    let lines = four_ranks(&site, "--mpi=pmi2", &[]);
    assert!(lines.iter().all(|line| line.contains("3.4.1")), "{lines:?}");
    assert_eq!(site.0.leftovers(), [""; 0]);
}

fn ranks_of_open_mpi_run_on_the_hosts(who: Who, runtime: Runtime) {
    let ground = Ground::with(who, runtime, &debian_with("openmpi"));
    let site = (Cluster::start(&ground.session, 2), ground);
    let session = &site.1.session;
    let directory = copy_stack(session, "openmpi");
    let own = four_ranks(&site, "--mpi=pmix", &[]);
    assert!(own.iter().all(|line| line.contains("Open MPI v4.1.4")), "{own:?}");
    let bind = format!("BIND_MOUNTS={}", directory.display());
    configure(session, &[libs(&directory.join("lib"), &["libmpi.so.40"]), bind]);
    let prefix = format!("OPAL_PREFIX={}", directory.display());
    let lines = four_ranks(&site, "--mpi=pmix", &["--mpi", "-e", &prefix]);
    assert!(lines.iter().all(|line| line.contains("Open MPI v5.0.11")), "{lines:?}");
    assert_eq!(site.0.leftovers(), [""; 0]);
}
