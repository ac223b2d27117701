extension Array where Element: Sendable {
    /// Calls `transform` with every element, at most `width` at once, and `body` with every result, one at a time in
    /// the order of the elements.
    ///
    /// - Throws: errors of `body`. Calls of `transform` that are under way are cancelled then.
    package func mapInOrder<Result: Sendable>(
        width: Int, _ transform: @escaping @Sendable (Element) async -> Result,
        body: (Element, Result) async throws -> Void
    ) async throws {
        try await withThrowingTaskGroup(of: (Int, Result).self) { group in
            var started = 0
            var finished: [Int: Result] = [:]
            for index in indices {
                while started < Swift.min(index + width, count) {
                    let (number, element) = (started, self[started])
                    group.addTask { (number, await transform(element)) }
                    started += 1
                }
                while finished[index] == nil, let (number, result) = try await group.next() {
                    finished[number] = result
                }
                if let result = finished.removeValue(forKey: index) { try await body(self[index], result) }
            }
        }
    }
}
