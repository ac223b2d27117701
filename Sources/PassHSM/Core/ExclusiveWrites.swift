/// The exclusive writes of one file: ranges reserved for local changes. Pure.
///
/// At most ``maxFirst`` exclusive writes are examined one by one. Later ones wait in order of arrival until there is
/// room among these.
struct ExclusiveWrites: Sendable {
    typealias ID = FillState.ID

    struct ExclusiveWrite: Sendable {
        let id: ID
        let granules: Range<Int>
        let cancelsFetches: Bool
        var isGranted = false
    }

    private static let maxFirst = 16
    /// In order of arrival. Where exclusive writes overlap, the earlier one is granted first.
    var first: [ExclusiveWrite] = []
    private var order = Fifo<ID>()
    private var late: [ID: ExclusiveWrite] = [:]

    var isEmpty: Bool { first.isEmpty && late.isEmpty }

    /// Adds an exclusive write. False when it has to wait for room among the first.
    mutating func add(_ write: ExclusiveWrite) -> Bool {
        if first.count < Self.maxFirst, late.isEmpty {
            first.append(write)
            return true
        }
        order.append(write.id)
        late[write.id] = write
        return false
    }

    /// Moves the next waiting exclusive write among the first, if there is room. Returns its index there.
    mutating func admit() -> Int? {
        while first.count < Self.maxFirst, let id = order.popFirst() {
            guard let write = late.removeValue(forKey: id) else { continue }
            first.append(write)
            return first.count - 1
        }
        return nil
    }

    /// Removes an exclusive write that is not granted. Returns its granules, or an empty range for an exclusive write
    /// that still waited for room; nil when there is no such exclusive write.
    mutating func removePending(_ id: ID) -> Range<Int>? {
        if let index = first.firstIndex(where: { $0.id == id && !$0.isGranted }) {
            return first.remove(at: index).granules
        }
        return late.removeValue(forKey: id) == nil ? nil : 0..<0
    }

    mutating func removeAllPending() -> [ID] {
        defer {
            first.removeAll { !$0.isGranted }
            (late, order) = ([:], .init())
        }
        return first.filter { !$0.isGranted }.map(\.id) + late.keys
    }

    mutating func remove(_ id: ID) -> Range<Int>? {
        first.firstIndex { $0.id == id }.map { first.remove(at: $0).granules }
    }

    /// Whether no earlier exclusive write overlaps the one at `index`.
    func isFree(_ index: Int) -> Bool { !first[..<index].contains { $0.granules.overlaps(first[index].granules) } }

    /// Where the exclusive write that contains `granule` ends; nil when none contains it.
    func end(at granule: Int) -> Int? { first.first { $0.granules.contains(granule) }?.granules.upperBound }

    /// Where the first exclusive write after `granule` begins; `Int.max` when there is none.
    func start(after granule: Int) -> Int {
        first.reduce(Int.max) { $1.granules.lowerBound > granule ? min($0, $1.granules.lowerBound) : $0 }
    }
}
