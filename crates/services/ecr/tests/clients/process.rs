//! The registry in a process of its own: this test program, called again.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use gantry_env::Env;
use gantry_store::SqliteStore;

use crate::serving;

const DIRECTORY: &str = "GANTRY_ECR_TEST_DIRECTORY";

pub struct Served {
    child: Child,
    pub address: SocketAddr,
    pub credentials: String,
}

impl Served {
    pub fn start(directory: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "process::registry_process",
                "--ignored",
                "--nocapture",
            ])
            .env(DIRECTORY, directory)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = lines.map(Result::unwrap).find_map(|line| {
            let line = line.split_once("ready ")?.1.to_owned();
            let (address, credentials) = line.split_once(' ')?;
            Some((address.parse().unwrap(), credentials.to_owned()))
        });
        let (address, credentials) = ready.unwrap();
        Self {
            child,
            address,
            credentials,
        }
    }

    /// With SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
#[ignore = "the other process of the crash test"]
fn registry_process() {
    let Some(directory) = std::env::var_os(DIRECTORY) else {
        return;
    };
    let directory = Path::new(&directory);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let store = SqliteStore::open(directory.join("rows"), Env::real()).unwrap();
        let service = serving::open(Arc::new(store), &directory.join("blobs")).await;
        let address = serving::serve(&service).await;
        let credentials = serving::credentials(&service, address).await;
        let context = serving::context(address);
        let input = gantry_api::ecr::CreateRepositoryRequest {
            repository_name: "app".to_owned(),
            ..Default::default()
        };
        // It is there already after the first start.
        let _ = gantry_api::ecr::Ecr::create_repository(&*service, &context, input).await;
        let mut out = std::io::stdout();
        writeln!(out, "\nready {address} {credentials}").unwrap();
        out.flush().unwrap();
        std::future::pending::<()>().await;
    });
}
