use super::*;

const LONG: Duration = Duration::from_secs(3600);

fn registry() -> Registry {
    Registry::new(1, Arc::default())
}

#[tokio::test]
async fn numbers_are_given_once_and_never_0() {
    let registry = registry();
    assert_eq!([1, 2, 3].map(|_| registry.next_connection()), [1, 2, 3]);
    let mut keys = Vec::new();
    for id in ["a", "b"] {
        keys.push(registry.claim(&id.into()).await.unwrap().session.key);
    }
    assert_eq!(keys, [1, 2]);
    // Those that the log knows are not given again.
    registry.restore(7, "restored".into());
    registry.restore_keys(8);
    registry.restore_keys(3);
    assert_eq!(registry.claim(&"c".into()).await.unwrap().session.key, 8);
}

#[tokio::test]
async fn sessions_are_found_by_their_names_and_numbers() {
    let registry = registry();
    for id in ["b", "c", "a"] {
        registry.claim(&id.into()).await.unwrap();
    }
    let restored = registry.restore(9, "d".into());
    let names = |sessions: Vec<Arc<Session>>| {
        let mut names = Vec::from_iter(sessions.iter().map(|it| it.client_id.to_string()));
        names.sort();
        names.concat()
    };
    assert!(Arc::ptr_eq(&registry.find("d").unwrap(), &restored));
    assert!(Arc::ptr_eq(&registry.by_key(9).unwrap(), &restored));
    assert!(registry.find("e").is_none() && registry.by_key(8).is_none());
    assert_eq!((names(registry.all()), registry.len()), ("abcd".into(), 4));
    let first = registry.first(2, |it| &*it.client_id != "a");
    assert_eq!(first.iter().map(|it| &*it.client_id).collect::<Vec<_>>(), ["b", "c"]);
}

/// However many there are, a page holds no more of them than it needs.
#[tokio::test]
async fn a_page_is_the_first_of_many() {
    let registry = registry();
    for n in 0..1000 {
        registry.restore(n + 1, format!("{n:03}").into());
    }
    let page = registry.first(70, |_| true);
    let expected = (0..70).map(|n| format!("{n:03}"));
    assert_eq!(page.iter().map(|it| it.client_id.to_string()).collect::<Vec<_>>(), {
        expected.collect::<Vec<_>>()
    });
}

#[test]
fn clients_spread_over_all_ways_and_keep_theirs() {
    let registry = Registry::new(3, Arc::default());
    let mut used = [0; 3];
    for n in 0..100 {
        let lane = registry.lane_of(&n.to_string());
        assert_eq!(lane, registry.lane_of(&n.to_string()));
        used[lane] += 1;
    }
    assert!(used.iter().all(|clients| *clients > 0), "{used:?}");
}

#[tokio::test]
async fn what_is_void_takes_no_room() {
    let registry = registry();
    let Claimed { session, mut state, .. } = registry.claim(&"c".into()).await.unwrap();
    for _ in 0..100 {
        registry.schedule(&session, Due::Will, LONG);
        registry.schedule(&session, Due::Expire, 2 * LONG);
        registry.serve(&session);
        assert!(registry.jobs.lock().is_empty(), "its client is back");
    }
    registry.schedule(&session, Due::Will, LONG);
    registry.remove(&session, &mut state, &Index::default());
    assert!(registry.jobs.lock().is_empty(), "it is forgotten");
    assert_eq!(Arc::strong_count(&session), 1, "by everybody");
}

#[tokio::test]
async fn what_is_due_comes_in_its_time() {
    let registry = registry();
    let Claimed { session, state, .. } = registry.claim(&"c".into()).await.unwrap();
    drop(state);
    registry.schedule(&session, Due::Expire, LONG);
    registry.schedule(&session, Due::Will, Duration::ZERO);
    let patience = Duration::from_secs(20);
    let due = tokio::time::timeout(patience, registry.next_due()).await.unwrap();
    assert_eq!(due.0, Due::Will);
    drop(due);
    let mut next = std::pin::pin!(registry.next_due());
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(next.as_mut().poll(&mut cx).is_pending(), "not yet");
    registry.serve(&session);
    assert!(registry.jobs.lock().is_empty(), "its client is back");
}

#[tokio::test]
async fn a_claim_that_is_given_up_voids_nothing() {
    let registry = registry();
    let id = "c".into();
    let Claimed { session, state, .. } = registry.claim(&id).await.unwrap();
    registry.schedule(&session, Due::Expire, Duration::ZERO);
    {
        // A CONNECT that waits for the session, and breaks off.
        let mut claim = std::pin::pin!(registry.claim(&id));
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(claim.as_mut().poll(&mut cx).is_pending());
    }
    drop(state);
    let patience = Duration::from_secs(20);
    let due = tokio::time::timeout(patience, registry.next_due()).await.unwrap();
    assert_eq!((due.0, due.1.key), (Due::Expire, session.key));
}

#[tokio::test]
async fn of_those_who_wait_for_a_session_only_the_last_gets_it() {
    let registry = registry();
    let id = "c".into();
    let Claimed { session, state, claim } = registry.claim(&id).await.unwrap();
    let mut second = std::pin::pin!(registry.claim(&id));
    let mut third = std::pin::pin!(registry.claim(&id));
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(second.as_mut().poll(&mut cx).is_pending());
    assert!(third.as_mut().poll(&mut cx).is_pending());
    assert!(!session.is_last_claim(claim), "whoever holds it learns that it was overtaken");
    drop(state);
    assert!(second.await.is_none(), "it is overtaken before it began");
    let Claimed { claim, .. } = third.await.unwrap();
    assert!(session.is_last_claim(claim));
}

/// Whoever holds the session may have been overtaken before it began, and the newer one have left.
#[tokio::test]
async fn what_is_due_while_a_session_is_held_comes_later() {
    let registry = registry();
    let Claimed { session, state, .. } = registry.claim(&"c".into()).await.unwrap();
    registry.schedule(&session, Due::Expire, Duration::ZERO);
    let mut next = std::pin::pin!(registry.next_due());
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(next.as_mut().poll(&mut cx).is_pending(), "it is held");
    drop(state);
    let patience = Duration::from_secs(20);
    let due = tokio::time::timeout(patience, next).await.unwrap();
    assert_eq!((due.0, due.1.key), (Due::Expire, session.key));
}
