//! Once more: retries (rule 13).

use std::sync::Arc;

use super::{deployment::Member, operate::unknown};
use crate::{
    db::{DbError, Op},
    engine::Engine,
    policy::History,
    state::{Happened, UpdateState},
    views::ServiceError,
};

impl Engine {
    /// Devices that it failed for may be offered it again; or one that is named, also where an
    /// operator had cancelled it for that one. Gives how many, and what waits until that and `ops`
    /// are written.
    pub fn retry(
        self: &Arc<Self>,
        id: i64,
        only: Option<&str>,
        ops: Vec<Op>,
    ) -> Result<(usize, impl Future<Output = Result<(), DbError>> + use<>), ServiceError> {
        let members: Vec<Arc<str>> = {
            let fleet = self.fleet.lock();
            let deployment = fleet.deployments.get(&id).ok_or_else(|| unknown(id))?;
            if deployment.state.is_over() {
                return Err(ServiceError::Conflict(format!("deployment {id}: it is over")));
            }
            let again = deployment.members.iter().filter(|(device, member)| match only {
                Some(only) => {
                    only == &***device && (may_retry(member) || member.cancelled.is_some())
                }
                None => may_retry(member) && member.cancelled.is_none(),
            });
            again.map(|(device, _)| Arc::clone(device)).collect()
        };
        if let Some(only) = only.filter(|_| members.is_empty()) {
            return Err(ServiceError::Conflict(format!(
                "deployment {id}: nothing failed or was cancelled for {only}"
            )));
        }
        let mut written = Vec::new();
        for name in &members {
            let Some(device) = self.registry.get(name) else { continue };
            let mut state = device.state.lock();
            if state.gone {
                continue; // its rows are deleted
            }
            let own = state.transfer.clone().filter(|own| own.pin.deployment == Some(id));
            let cancelled = {
                let fleet = self.fleet.lock();
                let member = fleet.deployments.get(&id).and_then(|one| one.members.get(name));
                member.is_some_and(|member| member.cancelled.is_some())
            };
            if own.is_none() && !cancelled {
                continue; // it is being given something else by now
            }
            let mut ops = vec![Op::Device(device.row(&state))];
            // One that asked no more is waited for anew.
            let offered =
                own.as_ref().filter(|own| own.happened(&Happened::OfferedAgain).is_some());
            if let Some(own) = offered {
                ops.extend(state.transfer_op(name, own));
                self.tell_device(&device, own);
            }
            let offered = offered.is_some();
            if let Some(digest) = own.map(|own| own.pin.digest) {
                let fresh = History::default();
                state.history.insert(digest, fresh);
                ops.push(Op::History(device.history_row(digest, fresh)));
                for link in &state.links {
                    let mut link = link.state.lock();
                    link.announced.retain(|announced| *announced != digest);
                    // One that asked for a part and no more hears the manifest again.
                    link.asked = false;
                }
            }
            let mut fleet = self.fleet.lock();
            let mut row = fleet.again(id, name);
            if offered {
                row = fleet.change(id, name, |member| member.moved(UpdateState::Offered));
            }
            drop(fleet);
            ops.extend(row);
            ops.push(Engine::happening(name, "retry", None, Some(id)));
            // Before the device can go on from here.
            written.push(self.keep(ops));
            drop(state);
            self.watch_outcome(&device);
        }
        let number = written.len();
        written.push(self.keep(ops));
        Ok((number, async move {
            for one in written {
                one.await?;
            }
            Ok(())
        }))
    }
}

fn may_retry(member: &Member) -> bool {
    matches!(
        member.state,
        Some(UpdateState::Failed(_) | UpdateState::Silent | UpdateState::Stalled)
    )
}
