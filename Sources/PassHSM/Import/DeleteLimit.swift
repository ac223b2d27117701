import HSMCore

/// How many of a tree's names an import may remove because the source no longer has them.
package enum DeleteLimit: Sendable, Hashable {
    /// A tenth; of small trees five names, but no more than half.
    case usual
    /// 0 to 100.
    case percent(Int)
    case names(Int)

    /// A number, or one of 0 to 100 with a `%` behind it; nil for anything else.
    package init?(_ text: String) {
        if text.hasSuffix("%") {
            guard let percent = Int(digits: text.dropLast()), percent <= 100 else { return nil }
            self = .percent(percent)
        } else {
            guard let count = Int(digits: text) else { return nil }
            self = .names(count)
        }
    }

    /// How many of `total` names; parts of a name count as one.
    func count(of total: Int) -> Int {
        switch self {
        case .usual: max((total + 9) / 10, min(5, (total + 1) / 2))
        case .percent(let percent): (total * percent + 99) / 100
        case .names(let count): count
        }
    }

    /// All of them may go.
    var isEverything: Bool { self == .percent(100) }
}
