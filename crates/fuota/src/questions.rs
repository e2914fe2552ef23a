//! What a device asks about its update, beside blocks: is there anything for me, and where do I
//! stand? Some dialects announce nothing by themselves and wait for this.

use std::sync::Arc;

use hook::Class;
use parking_lot::MutexGuard;
use tokio::time::Instant;

use crate::{
    device::{Device, DeviceState},
    dialect::{Answer, Question, Said},
    engine::Engine,
    link::{Link, LinkState, Pending},
    offers::Renewed,
    policy::Decision,
    transfer::Transfer,
};

impl Engine {
    /// Answers a question: from the offer that runs, else from a new one, else with nothing.
    pub fn ask(self: &Arc<Self>, link: &Arc<Link>, question: Question) {
        let Some(device) = self.device_of(link) else { return };
        let mut state = device.state.lock();
        {
            let mut on_link = link.state.lock();
            on_link.questioned = true;
            if on_link.waiting || state.pinning.is_some() {
                return on_link.keep(Pending::Question(question));
            }
        }
        let running = self.running(&device, &mut state);
        let current = state.transfer.clone().filter(|transfer| transfer.is_servable());
        if let Some(transfer) = running {
            if !self.must_renew(link, &transfer) {
                drop(state);
                return self.answer_from(link, &device, &transfer, &question);
            }
            return self.renew_and_answer(link, &device, state, &transfer, question);
        }
        if let Decision::Run(release) = self.decide(&device, &state)
            && !link.state.lock().announced.contains(&release.digest)
        {
            link.state.lock().keep(Pending::Question(question));
            self.offer(&device, state, link, &release, false);
            return;
        }
        drop(state);
        match current.filter(|transfer| transfer.state().awaits_outcome()) {
            Some(transfer) => self.answer_from(link, &device, &transfer, &question),
            None => self.answer_question(link, &question, None),
        }
    }

    fn renew_and_answer(
        self: &Arc<Self>,
        link: &Arc<Link>,
        device: &Arc<Device>,
        state: MutexGuard<'_, DeviceState>,
        transfer: &Arc<Transfer>,
        question: Question,
    ) {
        link.state.lock().keep(Pending::Question(question.clone()));
        match self.renew(device, state, link, transfer, false) {
            // It is answered when the new offer is written.
            Renewed::Offered => {}
            Renewed::Same => {
                link.state.lock().pending.clear();
                self.answer_from(link, device, transfer, &question);
            }
            Renewed::Impossible => {
                link.state.lock().pending.clear();
                self.answer_question(link, &question, None);
            }
        }
    }

    /// The answer is this transfer, unless it may not begin now.
    fn answer_from(
        self: &Arc<Self>,
        link: &Arc<Link>,
        device: &Arc<Device>,
        transfer: &Arc<Transfer>,
        question: &Question,
    ) {
        if self.held_back(transfer).is_some() {
            return self.answer_question(link, question, None);
        }
        if transfer.state().is_running() {
            self.enter(link, &mut link.state.lock(), device, transfer);
        }
        self.answer_question(link, question, Some(transfer));
    }

    /// Says the answer, and does what the device said with its question.
    pub fn answer_question(
        self: &Arc<Self>,
        link: &Arc<Link>,
        question: &Question,
        transfer: Option<&Arc<Transfer>>,
    ) {
        let release = transfer.and_then(|transfer| self.release_of(transfer));
        let mut state = link.state.lock();
        let window = self.settings().max_window;
        let offer = transfer.map(|transfer| transfer.offer(window, release.as_deref()));
        let Some(answer) = state.talk.as_mut().map(|talk| talk.answer(question, offer.as_ref()))
        else {
            return;
        };
        drop(offer);
        let Answer { says, note, report, announces } = answer;
        self.say_all(link, &state, says);
        if let Some(transfer) = transfer {
            if announces {
                self.heard_of(link, &mut state, transfer);
            }
            if let Some(note) = note {
                transfer.set_note(note);
            }
        }
        drop(state);
        if let Some(report) = report {
            self.report(link, report);
        }
    }

    /// Says messages; one who provokes more of them than it reads loses some.
    pub fn say_all(&self, link: &Link, state: &LinkState, says: Vec<Said>) {
        for said in says {
            let _ = self.say(link, state, said, Class::Control, None);
        }
    }

    /// The device knows of the offer by an answer, so it is not announced to it again.
    fn heard_of(&self, link: &Arc<Link>, state: &mut LinkState, transfer: &Arc<Transfer>) {
        state.heard_of(&transfer.pin);
        transfer.announced();
        state.spoken = Instant::now();
        self.watch_asking(link, state);
    }
}
