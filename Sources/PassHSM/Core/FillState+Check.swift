/// The check of the whole content. Granules that arrive are held back until it has passed.
extension FillState {
    /// Notes the result of the check. Without an error the held granules become present. With an error nothing becomes
    /// present any more, because the wrong bytes cannot be told from the right ones: all waiters fail, and the file
    /// starts anew once it is out of use.
    package mutating func checked(_ error: FillError?, _ actions: inout [Action]) {
        endCheck(error)
        if let error { return failAll(error, &actions) }
        for run in admitHeld() { becamePresent(run, &actions) }
    }

    /// Notes that `granules` of a fetch are in the lower file.
    mutating func arrived(_ granules: Range<Int>, _ actions: inout [Action]) {
        switch check {
        case .none: becamePresent(granules, &actions)
        case .all: hold(granules)
        case .last where present.count + held.count + granules.count < layout.count:
            becamePresent(granules, &actions)
        case .last: hold(granules)
        }
        startCheck(&actions)
    }
}
