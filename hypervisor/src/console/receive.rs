// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is typed, on its way to whoever gets it.
//!
//! # Locking
//! `SWITCH` covers who gets a byte and that it arrives in order; `INPUT` and the queue of keys are taken under it.

use hypercalls::{Result, Virq};
use spin::mutex::Mutex;

use super::input::InputRing;
use super::switch::{Receiver, Switch, Taken};
use super::{events, keys, print};

static SWITCH: Mutex<Switch, arch::sync::Relax> = Mutex::new(Switch::new());
/// What dom0 has not read yet.
static INPUT: Mutex<InputRing, arch::sync::Relax> = Mutex::new(InputRing::new());

/// Sets the letter that switches together with Ctrl; `None` for no switch.
pub fn set_switch(letter: Option<u8>) {
    SWITCH.lock().key = letter.map_or(0, |letter| letter & 0x1f);
}

/// Returns that letter, in lower case.
pub fn switch_letter() -> Option<u8> {
    Some(SWITCH.lock().key).filter(|key| *key != 0).map(|key| key | 0x60)
}

/// Returns who gets what is typed.
pub fn input_to() -> Receiver {
    SWITCH.lock().receiver
}

/// Lets somebody get what is typed from now on.
pub fn give_input(receiver: Receiver) {
    let mut switch = SWITCH.lock();
    switch.receiver = receiver;
    tell(&switch);
}

/// Says who gets the input, and how to change that.
fn tell(switch: &Switch) {
    let (name, other, hint) = match switch.receiver {
        Receiver::Hypervisor => ("Xenith", "dom0", "; h lists the debug keys"),
        Receiver::Dom0 => ("dom0", "Xenith", ""),
    };
    if switch.key == 0 {
        print(format_args!("*** serial input to {name}{hint}"));
    } else {
        let letter = char::from(switch.key | 0x40);
        print(format_args!(
            "*** serial input to {name} (type Ctrl-{letter} three times to switch input to {other}){hint}"
        ));
    }
}

/// Passes a byte on; true when dom0 has got something.
fn pass(switch: &mut Switch, byte: u8) -> bool {
    let to = switch.receiver;
    let held = match switch.take(byte) {
        Taken::Held => return false,
        Taken::Switched => {
            tell(switch);
            return false;
        }
        Taken::Passed(held) => held,
    };
    let presses = core::iter::repeat_n(switch.key, usize::from(held));
    let mut input = (to == Receiver::Dom0).then(|| INPUT.lock());
    for byte in presses.chain([byte]) {
        match &mut input {
            Some(input) => input.push(&[byte]),
            None => keys::press(byte),
        }
    }
    input.is_some()
}

/// Fetches what has been typed and passes it on.
pub(super) fn input() {
    let mut buffer = [0; 64];
    let mut for_dom0 = false;
    // A line that never falls silent does not keep this CPU.
    for _ in 0..16 {
        let count = arch::console::read(&mut buffer);
        let Some(bytes) = buffer.get(..count).filter(|b| !b.is_empty()) else {
            break;
        };
        let mut switch = SWITCH.lock();
        for &byte in bytes {
            for_dom0 |= pass(&mut switch, byte);
        }
    }
    if for_dom0 {
        events::send_global_virq(Virq::CONSOLE);
    }
}

/// Hands at most `most` bytes of what was typed to `take`, in parts, each with its offset; what `take` took is gone.
/// Returns how many there were.
///
/// # Errors
/// That of `take`: the part it failed on stays.
pub fn read_input(most: usize, mut take: impl FnMut(usize, &[u8]) -> Result<()>) -> Result<usize> {
    let mut input = INPUT.lock();
    let mut done = 0;
    while done < most {
        let part = input.first();
        let count = part.len().min(most - done);
        if count == 0 {
            break;
        }
        take(done, part.get(..count).unwrap_or(&[]))?;
        input.consume(count);
        done += count;
    }
    Ok(done)
}
