//! Links for downloads end with what they were made for.

use crate::{
    Actor, AuthMode, DevicePatch, NewDevice, ServiceError,
    download::Caller,
    harness::{Site, ann, token_request},
};

async fn link(site: &Site) -> String {
    site.service.link("a", 3600, None, &ann()).await.unwrap().0
}

async fn opens(site: &Site, link: &str) -> bool {
    let parts: Vec<_> = link.split('/').collect();
    let ["", "links", id, expires, signature] = parts[..] else { panic!("{link}") };
    let caller = Caller::Link { id, expires: expires.parse().unwrap(), signature };
    site.service.caller(caller, None).await.is_ok()
}

#[tokio::test]
async fn a_link_outlives_a_rotation_and_ends_with_a_cut_or_its_device() {
    let site = Site::with(|settings| settings.mode = AuthMode::Token).await;
    let add = || NewDevice { id: "a".into(), ..NewDevice::default() };
    site.service.add_device(add(), None, &Actor::default()).await.unwrap();
    let first = link(&site).await;
    let rotate = |now| DevicePatch { rotate_token: true, now, ..DevicePatch::default() };
    let new = site.service.set_device("a", rotate(false), &ann()).await.unwrap().token.unwrap();
    site.identify(&token_request(&new)).await;
    let site = site.restart(|_| {}).await;
    assert!(opens(&site, &first).await, "the new token has logged in");

    site.service.set_device("a", rotate(true), &ann()).await.unwrap();
    assert!(!opens(&site, &first).await, "the token was cut off");
    let second = link(&site).await;
    let site = site.restart(|_| {}).await;
    assert!(opens(&site, &second).await && !opens(&site, &first).await);

    site.service.remove_device("a", &ann()).await.unwrap();
    assert!(!opens(&site, &second).await);
    site.service.add_device(add(), None, &ann()).await.unwrap();
    assert!(!opens(&site, &second).await, "it is another registration");
    assert!(opens(&site, &link(&site).await).await);
}

#[tokio::test]
async fn a_repeated_request_brings_no_link_back_that_was_cut_off() {
    let site = Site::start().await;
    let device = NewDevice { id: "a".into(), ..NewDevice::default() };
    site.service.add_device(device, None, &Actor::default()).await.unwrap();
    let ask = async || site.service.link("a", 3600, Some("key"), &ann()).await;
    let first = ask().await.unwrap();
    assert_eq!(ask().await.unwrap(), first);
    let made = |audit: Vec<crate::AuditView>| {
        audit.iter().filter(|line| line.action == "download link made").count()
    };
    assert_eq!(made(site.service.audit(None, 9).await.unwrap()), 1);
    let cut = DevicePatch { rotate_token: true, now: true, ..DevicePatch::default() };
    site.service.set_device("a", cut, &ann()).await.unwrap();
    assert!(matches!(ask().await, Err(ServiceError::Conflict(_))));
}

#[tokio::test]
async fn who_made_a_link_is_in_the_audit() {
    let site = Site::start().await;
    let device = NewDevice { id: "a".into(), ..NewDevice::default() };
    site.service.add_device(device, None, &Actor::default()).await.unwrap();
    let (path, expires) = site.service.link("a", 3600, None, &ann()).await.unwrap();
    let audit = site.service.audit(None, 1).await.unwrap().pop().unwrap();
    let (actor, action) = (audit.actor.as_deref(), &*audit.action);
    assert_eq!((actor, action, &*audit.subject), (Some("ann"), "download link made", "a"));
    let detail = audit.detail.unwrap();
    let ends: jiff::Timestamp = detail.strip_prefix("until ").unwrap().parse().unwrap();
    assert_eq!(ends.as_second() as u64, expires);
    assert!(!detail.contains(path.rsplit('/').next().unwrap()), "the log opens nothing");
    site.forbid_writing(&["audit"]);
    assert!(site.service.link("a", 3600, None, &ann()).await.is_err(), "none without its line");
}
