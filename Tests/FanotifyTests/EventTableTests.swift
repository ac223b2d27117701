import HSMSystem
import Testing

@testable import HSMFanotify

@Suite struct EventTableTests {
    private func handle(_ byte: UInt8, count: Int = 8) throws -> FileHandle {
        try #require(FileHandle(type: 1, bytes: Array(repeating: byte, count: count)))
    }

    @Test func `Who maps the memory later finds what was entered and not removed`() throws {
        let table = try EventTable(count: 100)
        let open = EventTable.Entry(number: 0, thread: 17, range: nil, file: try handle(1))
        let access = EventTable.Entry(number: 99, thread: 18, range: 4096..<8192, file: try handle(2, count: 20))
        let answered = EventTable.Entry(number: 5, thread: 19, range: 0..<4096, file: try handle(3))
        for entry in [open, access, answered] { table.enter(entry) }
        table.remove(5)
        let other = try EventTable(try table.memory.duplicate())
        #expect(other.count == 100)
        #expect(other.entries == [open, access])
        other.remove(0)
        #expect(table.entries == [access])
    }

    @Test func `A number is used again, and one that has no slot is left out`() throws {
        let table = try EventTable(count: 10)
        let first = EventTable.Entry(number: 3, thread: 1, range: 0..<4096, file: try handle(1))
        let second = EventTable.Entry(number: 3, thread: 2, range: nil, file: try handle(2, count: 12))
        table.enter(first)
        table.remove(3)
        table.enter(second)
        for number: Int32 in [-1, 10, .max] {
            table.enter(EventTable.Entry(number: number, thread: 3, range: nil, file: try handle(3)))
            table.remove(number)
        }
        #expect(table.entries == [second])
    }
}
