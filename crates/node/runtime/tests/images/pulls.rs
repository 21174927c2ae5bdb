//! What is asked of a registry, and how often.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use gantry_env::Env;
use gantry_runtime::image_builder::ImageBuilder;
use gantry_runtime::{ImageStore, ImageStoreOptions, RegistryAccess};
use http::StatusCode;

use crate::layers::{Layer, Tar, digest, image};
use crate::registry::{Fault, Login, TOKEN, TestRegistry, blob_path};
use crate::{Fixture, names};

fn hello() -> gantry_runtime::image_builder::BuiltImage {
    let mut builder = ImageBuilder::new();
    builder
        .file("bin/hello", 0o755, *b"hello")
        .symlink("bin/hi", "hello")
        .directory("tmp", 0o1777);
    builder
        .environment("PATH=/bin")
        .entry_point(["/bin/hello"])
        .command(["world"])
        .user("65534");
    builder
        .working_directory("/tmp")
        .label("a", "b")
        .stop_signal("SIGQUIT");
    builder.build().unwrap()
}

#[tokio::test]
async fn a_built_image_arrives_as_it_was_built() {
    let fixture = Fixture::new().await;
    fixture.registry.put_built("team/hello", "1", &hello());
    let pulled = fixture.pull("team/hello:1").await.unwrap();
    assert_eq!(pulled.digest, hello().manifest.digest);
    assert_eq!(pulled.manifest_digest, pulled.digest);
    assert_eq!(pulled.config.entrypoint, ["/bin/hello"]);
    assert_eq!(pulled.config.cmd, ["world"]);
    assert_eq!(pulled.config.env, ["PATH=/bin"]);
    assert_eq!(pulled.config.user, "65534");
    assert_eq!(pulled.config.working_dir, "/tmp");
    assert_eq!(pulled.config.stop_signal.as_deref(), Some("SIGQUIT"));
    assert_eq!(pulled.config.labels["a"], "b");
    assert_eq!(fixture.store.config(&pulled.digest).unwrap(), pulled.config);

    let lowers = fixture.store.lowers(&pulled.digest).unwrap();
    assert_eq!(lowers.len(), 1);
    assert_eq!(fs::read(lowers[0].join("bin/hello")).unwrap(), b"hello");
    assert_eq!(
        fs::read_link(lowers[0].join("bin/hi")).unwrap().to_str(),
        Some("hello")
    );
    let mode = |path: &str| {
        fs::metadata(lowers[0].join(path))
            .unwrap()
            .permissions()
            .mode()
            & 0o7777
    };
    assert_eq!(
        [mode("bin/hello"), mode("bin"), mode("tmp")],
        [0o755, 0o755, 0o1777]
    );
    assert_eq!(
        names(&fixture.images().join("temporary")),
        Vec::<String>::new()
    );
}

#[tokio::test]
async fn a_tag_that_is_here_costs_one_request_and_a_digest_none() {
    let fixture = Fixture::new().await;
    fixture.registry.put_built("hello", "1", &hello());
    let first = fixture.pull("hello:1").await.unwrap();
    let before = fixture.registry.requests().len();
    assert_eq!(fixture.pull("hello:1").await.unwrap(), first);
    let later = fixture.registry.requests()[before..].to_vec();
    assert_eq!(later, [("/v2/hello/manifests/1".to_owned(), None)]);
    let pinned = format!("hello@{}", first.digest);
    assert_eq!(fixture.pull(&pinned).await.unwrap(), first);
    assert_eq!(fixture.registry.requests().len(), before + 1);
}

#[tokio::test]
async fn what_was_pulled_is_found_again_without_a_network() {
    let fixture = Fixture::new().await;
    fixture.registry.put_built("hello", "1", &hello());
    let reference = fixture.registry.reference("hello:1");
    assert_eq!(fixture.store.cached(&reference), None);
    let pulled = fixture.pull("hello:1").await.unwrap();
    let Fixture {
        dir,
        store,
        registry,
    } = fixture;
    drop((store, registry));
    let store = ImageStore::open(&dir.path().join("images"), Env::real()).unwrap();
    assert_eq!(store.cached(&reference), Some(pulled.clone()));
    let pinned = reference.with_digest(&pulled.digest).unwrap();
    assert_eq!(
        store
            .pull(&pinned, &RegistryAccess::default())
            .await
            .unwrap(),
        pulled
    );
    // A layer that is gone makes the image gone.
    fs::remove_dir_all(&store.lowers(&pulled.digest).unwrap()[0]).unwrap();
    assert_eq!(store.cached(&reference), None);
}

#[tokio::test]
async fn a_tag_that_moved_is_followed() {
    let fixture = Fixture::new().await;
    fixture.registry.put_built("hello", "1", &hello());
    let first = fixture.pull("hello:1").await.unwrap();
    let second = ImageBuilder::new()
        .file("other", 0o644, *b"2")
        .build()
        .unwrap();
    fixture.registry.put_built("hello", "1", &second);
    let moved = fixture.pull("hello:1").await.unwrap();
    assert_ne!(moved.digest, first.digest);
    let reference = fixture.registry.reference("hello:1");
    assert_eq!(fixture.store.cached(&reference), Some(moved));
}

#[tokio::test]
async fn callers_of_one_image_share_the_pull() {
    let fixture = Fixture::new().await;
    let built = hello();
    fixture.registry.put_built("hello", "1", &built);
    let pulls = (0..10).map(|_| fixture.pull("hello:1"));
    for pulled in futures_util::future::join_all(pulls).await {
        assert_eq!(pulled.unwrap().digest, built.manifest.digest);
    }
    for part in [
        "/manifests/1",
        built.config.digest.as_str(),
        built.layer.digest.as_str(),
    ] {
        assert_eq!(fixture.registry.count(part), 1, "{part}");
    }
}

#[tokio::test]
async fn images_that_share_a_layer_fetch_it_once() {
    let fixture = Fixture::new().await;
    let shared = Layer::gzip(&Tar::default().file("shared", b"s").end());
    for (name, data) in [("a", b"a"), ("b", b"b")] {
        let own = Layer::zstd(&Tar::default().file("own", data).end());
        image(&[shared.clone(), own, shared.clone()]).put(&fixture.registry, name, "1");
    }
    let (a, b) = tokio::join!(fixture.pull("a:1"), fixture.pull("b:1"));
    let (a, b) = (a.unwrap(), b.unwrap());
    assert_eq!(a.diff_ids[0], b.diff_ids[0]);
    assert_eq!(fixture.registry.count(&digest(&shared.blob)), 1);
    // Three layers, but overlayfs takes a folder once; its place is the topmost.
    let lowers = fixture.store.lowers(&a.digest).unwrap();
    assert_eq!(lowers.len(), 2);
    assert!(lowers[0].join("shared").exists() && lowers[1].join("own").exists());
}

#[tokio::test]
async fn layers_are_fetched_at_the_same_time() {
    let fixture = Fixture::new().await;
    let layers: Vec<Layer> = (0..6u8)
        .map(|at| Layer::gzip(&Tar::default().file(&format!("f{at}"), &[at; 5000]).end()))
        .collect();
    image(&layers).put(&fixture.registry, "wide", "1");
    // Nobody is answered before four have asked, so one after the other would never end.
    let paths = layers
        .iter()
        .map(|layer| blob_path("wide", &digest(&layer.blob)))
        .collect();
    fixture.registry.content.lock().unwrap().together = Some((paths, 4));
    let pulled = fixture.pull("wide:1").await.unwrap();
    assert_eq!(fixture.store.lowers(&pulled.digest).unwrap().len(), 6);
}

#[tokio::test]
async fn a_broken_connection_and_a_busy_registry_are_tried_again() {
    let fixture = Fixture::new().await;
    let built = ImageBuilder::new()
        .file("big", 0o644, vec![7; 3 << 20])
        .build()
        .unwrap();
    fixture.registry.put_built("hello", "1", &built);
    let layer = blob_path("hello", &built.layer.digest);
    fixture.registry.fault(&layer, Fault::Break(1));
    fixture.registry.fault(
        "/v2/hello/manifests/1",
        Fault::Status(StatusCode::SERVICE_UNAVAILABLE, 1),
    );
    let pulled = fixture.pull("hello:1").await.unwrap();
    assert_eq!(fixture.registry.count(&layer), 2);
    assert_eq!(fixture.registry.count("/manifests/1"), 2);
    let lower = fixture.store.lowers(&pulled.digest).unwrap().remove(0);
    assert_eq!(fs::read(lower.join("big")).unwrap(), vec![7; 3 << 20]);
}

fn password(password: &str) -> RegistryAccess {
    RegistryAccess {
        basic: Some(("AWS".to_owned(), password.to_owned())),
        ..RegistryAccess::default()
    }
}

#[tokio::test]
async fn basic_credentials_are_shown_to_the_registry_and_not_to_where_it_redirects() {
    let fixture = Fixture::new().await;
    let elsewhere = TestRegistry::start().await;
    let built = hello();
    fixture.registry.put_built("hello", "1", &built);
    elsewhere.put(
        "/blob",
        "application/octet-stream",
        built.layer.bytes.clone(),
    );
    fixture.registry.fault(
        &blob_path("hello", &built.layer.digest),
        Fault::Redirect(format!("http://{}/blob", elsewhere.address)),
    );
    fixture.registry.content.lock().unwrap().login = Some(Login {
        user: "AWS".to_owned(),
        password: "secret".to_owned(),
        realm: None,
    });
    fixture
        .pull_with("hello:1", &password("secret"))
        .await
        .unwrap();
    assert_eq!(elsewhere.requests(), [("/blob".to_owned(), None)]);
    let error = fixture
        .pull_with("hello:1", &password("wrong"))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("pull access denied"), "{error}");
    assert!(!error.to_string().contains("wrong"), "{error}");
}

#[tokio::test]
async fn a_challenge_is_answered_with_a_token_of_the_service_it_names() {
    let fixture = Fixture::new().await;
    fixture.registry.put_built("hello", "1", &hello());
    fixture.registry.content.lock().unwrap().login = Some(Login {
        user: "AWS".to_owned(),
        password: "secret".to_owned(),
        realm: Some(format!("http://{}/token", fixture.registry.address)),
    });
    fixture
        .pull_with("hello:1", &password("secret"))
        .await
        .unwrap();
    assert_eq!(fixture.registry.count("/token"), 1);
    let bearer = RegistryAccess {
        bearer: Some(TOKEN.to_owned()),
        ..RegistryAccess::default()
    };
    fixture.pull_with("hello:1", &bearer).await.unwrap();
    assert_eq!(fixture.registry.count("/token"), 1);
    let error = fixture.pull("hello:1").await.unwrap_err();
    assert!(error.to_string().contains("pull access denied"), "{error}");
}

#[tokio::test]
async fn a_token_service_on_another_plain_host_is_not_shown_the_password() {
    let fixture = Fixture::new().await;
    let elsewhere = TestRegistry::start().await;
    fixture.registry.put_built("hello", "1", &hello());
    fixture.registry.content.lock().unwrap().login = Some(Login {
        user: "AWS".to_owned(),
        password: "secret".to_owned(),
        realm: Some(format!("http://{}/token", elsewhere.address)),
    });
    fixture
        .pull_with("hello:1", &password("secret"))
        .await
        .unwrap_err();
    assert_eq!(elsewhere.requests(), [("/token".to_owned(), None)]);
}

#[tokio::test]
async fn https_is_spoken_only_with_a_registry_that_somebody_vouches_for() {
    let mut fixture = Fixture::new().await;
    let (registry, certificate) = TestRegistry::start_tls().await;
    fixture.registry = registry;
    fixture.registry.put_built("hello", "1", &hello());
    let access = RegistryAccess {
        endpoint: Some(format!("https://{}", fixture.registry.address)),
        ..password("secret")
    };
    let error = fixture.pull_with("hello:1", &access).await.unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");
    assert_eq!(fixture.registry.requests(), []);
    let options = ImageStoreOptions {
        authorities_pem: certificate.into_bytes(),
        ..ImageStoreOptions::default()
    };
    fixture.store = ImageStore::open_with(&fixture.images(), Env::real(), options).unwrap();
    fixture.pull_with("hello:1", &access).await.unwrap();
}
