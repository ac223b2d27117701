import CLinux
import Glibc
import HSMCore
import HSMSystem

@testable import HSMControl
@testable import HSMFanotify

// What comes from the kernel, and from other processes of this machine.

extension FuzzTarget {
    static let local = [
        FuzzTarget(name: "events", maxLength: 1024, check: events),
        FuzzTarget(name: "event-table", maxLength: 960, check: eventTable),
        FuzzTarget(name: "guardian", check: guardian),
        // Its client reads after it has written.
        FuzzTarget(name: "control", maxLongLength: 0, check: control),
        FuzzTarget(name: "proc", check: proc),
    ]

    /// What read(2) of a fanotify group gives.
    private static func events(_ input: [UInt8]) throws {
        let batch = input.withUnsafeBytes { EventBatch($0) }
        try expect(batch.events.count * 24 <= input.count, "\(batch.events.count) events")
        try expect(batch.isDamaged || batch.events.isEmpty == input.isEmpty, "bytes are passed over")
        for event in batch.events {
            if case .access(let range) = event.kind { try expect(range.lowerBound >= 0, "an access to \(range)") }
        }
    }

    /// The memory of a daemon that has ended.
    private static func eventTable(_ input: [UInt8]) throws {
        let memory = Descriptor(owning: passhsm_memfd("passhsm-fuzz"))
        var failure: Errno?
        input.withUnsafeBytes { bytes in
            do throws(Errno) { try memory.write(bytes, at: 0) } catch { failure = error }
        }
        if let failure { throw failure }
        let table: EventTable
        do throws(Errno) { table = try EventTable(memory) } catch { return }
        try expect(table.count <= input.count / 96, "\(table.count) slots")
        let entries = table.entries
        for entry in entries {
            try expect(Int(entry.number) < table.count && (entry.range?.lowerBound ?? 0) >= 0, "\(entry)")
            table.enter(entry)
        }
        try expect(table.entries == entries, "an entry that is written is read as another")
        for entry in entries { table.remove(entry.number) }
        try expect(table.entries.isEmpty, "an entry that is removed is there")
    }

    /// A line of a guardian's socket, from either side.
    private static func guardian(_ input: [UInt8]) throws {
        if let request = try? GuardianCoding.decode(GuardianRequest.self, input), case .keep(let mount) = request {
            try expectSame(mount)
        }
        if let answer = try? GuardianCoding.decode(GuardianAnswer.self, input), case .kept(let mount, _) = answer {
            try expectSame(mount)
        }
    }

    private static func expectSame(_ mount: GuardedMount) throws {
        let line = try GuardianCoding.encode(mount)
        try expect(!line.contains(0x0a), "a line of two lines")
        try expect(try GuardianCoding.decode(GuardedMount.self, line) == mount, "a mount is read as another")
        try expect(ContinuousClock.now + mount.takeover > .now - .seconds(60), "a takeover of \(mount.takeover)")
    }

    /// Lines of a control socket. A server that lives answers each, and the next client's too.
    private static func control(_ input: [UInt8]) throws {
        for line in input.split(separator: 0x0a) {
            guard let request = try? ControlJSON.decode(ControlRequest.self, from: Array(line)) else { continue }
            let encoded = try ControlJSON.encode(request)
            try expect(!encoded.contains(0x0a), "a request of two lines")
            try expect(try ControlJSON.decode(ControlRequest.self, from: encoded) == request, "it is read as another")
        }
        if let reply = try? ControlJSON.decode(ControlReply.self, from: input) { _ = try ControlJSON.encode(reply) }
        let server = try FuzzedServer.shared.get()
        for line in try server.exchange(input) {
            let reply = try ControlJSON.decode(ControlReply.self, from: line)
            if let error = reply.error { try expectMessage(error, about: input) }
        }
    }

    /// Files of /proc, which show names that users choose, and text that stands for bytes.
    private static func proc(_ input: [UInt8]) throws {
        for entry in MountTable.parse(input) {
            try expect(entry.mountpoint.bytes.count + entry.source.bytes.count <= input.count, "longer than the line")
        }
        if let caller = CallerSyscall(input) { _ = (caller.opensForReading, caller.mayTruncate, caller.readsRange) }
        let text = ArgumentText.encode(input)
        try expect(ArgumentText.decode(text) == input, "text stands for other bytes than it was made of")
        try expectMessage(ArgumentText.readable(text) + ".", about: input)
        let name = String(decoding: input, as: UTF8.self)
        if let handle = FileHandle(name: name) {
            try expect(handle.name == name.lowercased() && FileHandle(name: handle.name) == handle, "\(handle.name)")
        }
    }
}
