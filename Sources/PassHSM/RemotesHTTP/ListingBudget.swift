import HSMCore
import HSMSystem
import Synchronization

/// What an import of index pages may hold in memory. Its methods may be called on any thread.
final class ListingBudget: Sendable {
    /// Bytes of one page: half a million names.
    static let maxPage = 64 << 20
    /// Pages up to this are read by every request at once, and larger ones by some.
    static let smallPage = 1 << 20
    /// Bytes of the names of all pages that are gone through or waited for.
    static let maxNames = 1 << 30

    /// Who reads a large page.
    let largePages = TurnLimit(2)
    private let held = Atomic(0)

    /// Counts a page's names until ``drop(_:)``.
    ///
    /// - Throws: `.remoteFailed` when there are too many.
    func hold(_ page: HTTPIndexPage, of url: String) throws(FillError) {
        let cost = page.cost
        guard held.add(cost, ordering: .relaxed).newValue > Self.maxNames else { return }
        held.subtract(cost, ordering: .relaxed)
        throw FillError(
            .io, .remoteFailed, "\(url): the server's pages list more names at once than memory is given to")
    }

    func drop(_ page: HTTPIndexPage) { held.subtract(page.cost, ordering: .relaxed) }
}
