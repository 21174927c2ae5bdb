//! Installs what a fresh Debian machine with Rust lacks, and nothing that is there already.
//!
//! Debian packages come through apt-get (with sudo when not root), tools of the Rust world
//! through cargo, Python's through pip. No other source is asked.

use anyhow::bail;

use crate::shell::{self, command, has, is_root, output, say};

/// What is going to be done on this machine.
#[derive(Clone, Copy, Default)]
pub struct Wanted {
    /// Running the sample task of `cargo xtask up`.
    pub sample: bool,
    /// Running the tests.
    pub tests: bool,
    /// Running the benchmarks with their peers.
    pub bench: bool,
    /// Running the tests in an emulated machine.
    pub guest: bool,
}

/// A Debian package, and the file whose presence says that it is installed.
struct Package {
    name: &'static str,
    proof: &'static str,
}

const BUILD: &[Package] = &[
    Package {
        name: "gcc",
        proof: "/usr/bin/gcc",
    },
    Package {
        name: "libc6-dev",
        proof: "/usr/include/stdio.h",
    },
    Package {
        name: "pkg-config",
        proof: "/usr/bin/pkg-config",
    },
    // The one program that Gantry itself runs: it reads the table for tasks in bridge mode.
    Package {
        name: "nftables",
        proof: "/usr/sbin/nft",
    },
];

/// The sample image holds this one static program.
const SAMPLE: &[Package] = &[Package {
    name: "busybox-static",
    proof: "/bin/busybox",
}];

const TESTS: &[Package] = &[
    // libFuzzer is C++.
    Package {
        name: "g++",
        proof: "/usr/bin/g++",
    },
    Package {
        name: "skopeo",
        proof: "/usr/bin/skopeo",
    },
    Package {
        name: "buildah",
        proof: "/usr/bin/buildah",
    },
    // Version 2, for `aws logs tail`, which the one on PyPI does not have.
    Package {
        name: "awscli",
        proof: "/usr/bin/aws",
    },
    Package {
        name: "umoci",
        proof: "/usr/bin/umoci",
    },
    Package {
        name: "iproute2",
        proof: "/sbin/ip",
    },
    // Cuts its own connection in the middle of a layer.
    Package {
        name: "curl",
        proof: "/usr/bin/curl",
    },
    // Signs assertions of SAML, so that what verifies them meets another implementation.
    Package {
        name: "xmlsec1",
        proof: "/usr/bin/xmlsec1",
    },
    // A registry that is not Gantry's, killed in the middle of a pull; and a peer of the benchmarks.
    Package {
        name: "docker-registry",
        proof: "/usr/bin/docker-registry",
    },
];

const BENCH: &[Package] = &[
    Package {
        name: "docker.io",
        proof: "/usr/sbin/dockerd",
    },
    Package {
        name: "iptables",
        proof: "/usr/sbin/iptables",
    },
    // For moto[server] in an environment of its own.
    Package {
        name: "python3-venv",
        proof: "/usr/share/doc/python3-venv",
    },
];

const GUEST: &[Package] = &[
    Package {
        name: "qemu-system-x86",
        proof: "/usr/bin/qemu-system-x86_64",
    },
    Package {
        name: "debootstrap",
        proof: "/usr/sbin/debootstrap",
    },
    Package {
        name: "e2fsprogs",
        proof: "/sbin/mke2fs",
    },
    Package {
        name: "binutils",
        proof: "/usr/bin/objcopy",
    },
];

/// Installs what is missing for `wanted`.
pub fn run(wanted: Wanted) -> anyhow::Result<()> {
    let mut packages: Vec<&Package> = BUILD.iter().collect();
    if wanted.sample || wanted.tests || wanted.bench {
        packages.extend(SAMPLE);
    }
    if wanted.tests || wanted.bench {
        packages.extend(TESTS);
    }
    if wanted.bench {
        packages.extend(BENCH);
    }
    if wanted.guest {
        packages.extend(GUEST);
    }
    let missing: Vec<&str> = packages
        .iter()
        .filter(|p| !std::path::Path::new(p.proof).exists())
        .map(|p| p.name)
        .collect();
    if !missing.is_empty() {
        install_debian(&missing)?;
    }
    if wanted.tests {
        install_test_tools()?;
    }
    say("everything needed is installed");
    Ok(())
}

fn install_debian(missing: &[&str]) -> anyhow::Result<()> {
    if !has("apt-get") {
        bail!(
            "this machine lacks {}, and has no apt-get to install them with",
            missing.join(", ")
        );
    }
    say(&format!("installing from Debian: {}", missing.join(" ")));
    let apt = |words: &[&str]| {
        let mut apt = if is_root() {
            command("apt-get")
        } else {
            let mut sudo = command("sudo");
            sudo.arg("apt-get");
            sudo
        };
        apt.env("DEBIAN_FRONTEND", "noninteractive")
            .args(words)
            .stdout(std::process::Stdio::null());
        shell::run(&mut apt)
    };
    apt(&["update", "-qq"])?;
    // Without this a freshly installed Docker would be started as a service of the machine.
    let policy = std::path::Path::new("/usr/sbin/policy-rc.d");
    let ours = is_root() && !policy.exists();
    if ours {
        std::fs::write(policy, "#!/bin/sh\nexit 101\n")?;
        shell::run(command("chmod").arg("+x").arg(policy))?;
    }
    let mut words = vec!["install", "-y", "-qq", "--no-install-recommends"];
    words.extend(missing);
    let installed = apt(&words);
    if ours {
        std::fs::remove_file(policy)?;
    }
    installed
}

fn install_test_tools() -> anyhow::Result<()> {
    if output(command("cargo").args(["nextest", "--version"])).is_err() {
        say("installing cargo-nextest");
        shell::run(command("cargo").args(["install", "--locked", "cargo-nextest"]))?;
    }
    if !has("aws") || output(command("python3").args(["-c", "import boto3"])).is_err() {
        say("installing the AWS CLI and boto3 from PyPI");
        shell::run(
            command("python3").args(["-m", "pip", "install", "--quiet", "awscli", "boto3"]),
        )?;
    }
    Ok(())
}
