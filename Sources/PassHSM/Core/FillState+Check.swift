/// Content that is only right as a whole: what arrives is held back until it was checked.
extension FillState {
    /// The check has ended: with nil what was held becomes present. With an error nothing more will, because what is in
    /// the lower file cannot be told from what is wrong; whoever waits fails, and the file starts anew when nobody uses it.
    package mutating func checked(_ error: FillError?, _ actions: inout [Action]) {
        endCheck(error)
        if let error { return failAll(error, &actions) }
        for run in release() { becamePresent(run, &actions) }
    }

    /// `granules` of a fetch are in the lower file.
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
