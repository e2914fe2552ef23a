use std::{fs, net::TcpListener, os::unix::fs::PermissionsExt as _, time::Duration};

use super::{machine::disk, *};

async fn of(dir: &Path, text: &str) -> Vec<Finding> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let file = dir.join("broker.toml");
    fs::write(&file, text).unwrap();
    look(Some(&file), None).await
}

/// Ports that nobody has: of a listener that is closed again.
fn free() -> String {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    address.to_string()
}

fn plain() -> String {
    format!("mqtt.listen = {:?}\nadmin.listen = {:?}\nlimits.connections = 10\n", free(), free())
}

fn find<'a>(findings: &'a [Finding], check: &str) -> &'a Finding {
    findings.iter().find(|one| one.check == check).unwrap_or_else(|| panic!("{findings:?}"))
}

#[tokio::test]
async fn a_site_before_its_first_start_is_well() {
    let dir = tempfile::tempdir().unwrap();
    let findings = of(dir.path(), &plain()).await;
    for finding in &findings {
        assert_ne!(finding.verdict, Verdict::Problem, "{finding:?}");
    }
    assert!(find(&findings, "daemon").says.contains("does not run"));
    assert!(find(&findings, "data_dir").says.contains("first start"));
    assert!(!dir.path().join("data").exists(), "it changes nothing");
}

/// As the daemon would: all of IPv6 is free where a port of IPv4 is taken.
#[tokio::test]
async fn a_port_is_taken_in_its_own_family_alone() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let _other = TcpListener::bind(taken).unwrap();
    let text = format!(
        "mqtt.listen = \"[::]:{}\"\nauth.allow_open_network = true\nadmin.listen = {:?}\n",
        taken.port(),
        free()
    );
    let findings = of(dir.path(), &text).await;
    assert!(!findings.iter().any(|one| one.check == "ports"), "{findings:?}");
}

#[tokio::test]
async fn mistakes_of_the_configuration_come_one_a_line() {
    let dir = tempfile::tempdir().unwrap();
    let findings = of(dir.path(), "mqtt.lisen = 1\nlog.level = \"loud\"\n").await;
    assert_eq!(findings.len(), 2, "{findings:?}");
    assert!(
        findings.iter().all(|one| one.verdict == Verdict::Problem && one.check == "configuration")
    );
}

#[tokio::test]
async fn what_is_wrong_is_said_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    params.not_before = rcgen::date_time_ymd(2019, 1, 1);
    let old = params.self_signed(&key).unwrap();
    fs::write(dir.path().join("cert.pem"), old.pem()).unwrap();
    fs::write(dir.path().join("key.pem"), key.serialize_pem()).unwrap();
    fs::create_dir(dir.path().join("data")).unwrap();
    fs::set_permissions(dir.path().join("data"), fs::Permissions::from_mode(0o755)).unwrap();
    let findings = of(
        dir.path(),
        &format!(
            "mqtt.listen = \"{}\"\nadmin.listen = {:?}\nstore.url = \"file:/nowhere/at/all\"\n\
             admin.tls.cert = \"cert.pem\"\nadmin.tls.key = \"key.pem\"\n",
            taken.local_addr().unwrap(),
            free()
        ),
    )
    .await;
    let ports = find(&findings, "ports");
    assert!(ports.verdict == Verdict::Problem && ports.says.contains("mqtt.listen"), "{ports:?}");
    let certificates = find(&findings, "certificates");
    assert!(certificates.says.contains("has expired"), "{certificates:?}");
    assert!(find(&findings, "store").says.contains("/nowhere/at/all"));
    let data = find(&findings, "data_dir");
    assert!(
        data.says.contains("mode 755") && data.advice.as_deref().unwrap().contains("chmod 700")
    );
    assert!(findings.iter().all(|one| one.verdict == Verdict::Ok || one.advice.is_some()));
}

#[tokio::test]
async fn a_certificate_that_ends_soon_is_worth_a_word() {
    let dir = tempfile::tempdir().unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
    let soon = std::time::SystemTime::now() + Duration::from_secs(5 * 24 * 3600 + 60);
    params.not_after = soon.into();
    let cert = params.self_signed(&key).unwrap();
    fs::write(dir.path().join("cert.pem"), cert.pem()).unwrap();
    fs::write(dir.path().join("key.pem"), key.serialize_pem()).unwrap();
    let tls = "admin.tls.cert = \"cert.pem\"\nadmin.tls.key = \"key.pem\"\n";
    let findings = of(dir.path(), &(plain() + tls)).await;
    let certificates = find(&findings, "certificates");
    assert_eq!(certificates.verdict, Verdict::Warning);
    assert!(certificates.says.contains("ends in 5 days"), "{certificates:?}");
}

#[test]
fn a_full_disk_is_a_problem_before_it_is_full() {
    let verdict = |room| disk("/data", room, 512_000_000).verdict;
    assert_eq!(verdict(10_000_000), Verdict::Problem);
    assert_eq!(verdict(500_000_000), Verdict::Warning);
    assert_eq!(verdict(50_000_000_000), Verdict::Ok);
    assert_eq!(disk("/data", 2_000_000_000, 5_000_000_000).verdict, Verdict::Warning);
}
