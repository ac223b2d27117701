import HSMCore

/// The bound of names that an import may remove from a tree because the source no longer has them.
package enum DeleteLimit: Sendable, Hashable {
    /// A tenth; for small trees five names, but no more than half.
    case usual
    /// 0 to 100 per cent.
    case percent(Int)
    case names(Int)

    /// Reads a count, or a number from 0 to 100 followed by `%`; nil for anything else.
    package init?(_ text: String) {
        if text.hasSuffix("%") {
            guard let percent = Int(digits: text.dropLast()), percent <= 100 else { return nil }
            self = .percent(percent)
        } else {
            guard let count = Int(digits: text) else { return nil }
            self = .names(count)
        }
    }

    /// The bound for a tree of `total` names, rounded up.
    func count(of total: Int) -> Int {
        switch self {
        case .usual: max((total + 9) / 10, min(5, (total + 1) / 2))
        case .percent(let percent): (total * percent + 99) / 100
        case .names(let count): count
        }
    }

    /// Whether all names may be removed.
    var isEverything: Bool { self == .percent(100) }
}
