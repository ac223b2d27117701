import Foundation
import Glibc
import HSMSystem
import Synchronization

/// Workloads whose cost is that of content.
enum Content {
    static func readAt(
        _ path: String, count: Int, size: Int, threads: Int, seed: UInt64
    ) throws -> [String: Double] {
        let beginning = seconds()
        let file = try Descriptor.open(path, O_RDONLY)
        let opened = seconds() - beginning
        let length = try file.stat().st_size
        guard length >= size else { throw Workload.Refusal(description: "\(path) is too small") }
        let all = Mutex<[Double]>([])
        let failure = Mutex<Errno?>(nil)
        let start = seconds()
        inParallel(threads) { thread in
            var random = SplitMix64(state: seed &+ UInt64(thread))
            let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: size, alignment: 4096)
            defer { buffer.deallocate() }
            var times: [Double] = []
            for _ in 0..<count {
                let offset = Int.random(in: 0...(length - size) / size, using: &random) * size
                let start = seconds()
                do throws(Errno) { _ = try file.read(into: buffer, at: offset) } catch {
                    failure.withLock { $0 = error }
                    return
                }
                times.append(seconds() - start)
            }
            all.withLock { $0 += times }
        }
        let elapsed = seconds() - start
        if let error = failure.withLock({ $0 }) { throw error }
        let sorted = all.withLock { $0.sorted() }
        return [
            "median_seconds": sorted[sorted.count / 2], "p99_seconds": sorted[sorted.count * 99 / 100],
            "operations_per_second": Double(sorted.count) / elapsed, "open_seconds": opened,
        ]
    }

    static func mapAt(_ path: String, count: Int, seed: UInt64) throws -> [String: Double] {
        let file = try Descriptor.open(path, O_RDONLY)
        let length = try file.stat().st_size
        let start = seconds()
        guard let map = mmap(nil, length, PROT_READ, MAP_SHARED, file.raw, 0), map != MAP_FAILED else {
            throw Errno(rawValue: errno)
        }
        defer { munmap(map, length) }
        madvise(map, length, Int32(MADV_RANDOM))
        var random = SplitMix64(state: seed)
        var sum = 0
        for _ in 0..<count {
            sum &+= Int(
                map.load(fromByteOffset: Int.random(in: 0..<length / 4096, using: &random) * 4096, as: UInt8.self))
        }
        return ["seconds": (seconds() - start) / Double(count), "sum": Double(sum)]
    }

    static func readAll(_ directory: String, threads: Int) throws -> [String: Double] {
        let names = try FileManager.default.contentsOfDirectory(atPath: directory).sorted()
        let next = Atomic(0)
        let bytes = Atomic(0)
        let failure = Mutex<Errno?>(nil)
        let start = seconds()
        inParallel(threads) { _ in
            let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 4096)
            defer { buffer.deallocate() }
            while true {
                let place = next.add(1, ordering: .relaxed).oldValue
                guard place < names.count else { return }
                do throws(Errno) {
                    let file = try Descriptor.open("\(directory)/\(names[place])", O_RDONLY)
                    var offset = 0
                    while true {
                        let count = try file.read(into: buffer, at: offset)
                        bytes.add(count, ordering: .relaxed)
                        offset += count
                        if count < buffer.count { break }
                    }
                } catch {
                    failure.withLock { $0 = error }
                    return
                }
            }
        }
        let elapsed = seconds() - start
        if let error = failure.withLock({ $0 }) { throw error }
        return [
            "seconds": elapsed, "files": Double(names.count),
            "bytes": Double(bytes.load(ordering: .relaxed)),
        ]
    }

    private static func inParallel(_ threads: Int, _ body: @escaping @Sendable (Int) -> Void) {
        let group = DispatchGroup()
        for thread in 0..<threads {
            group.enter()
            Thread.detachNewThread {
                body(thread)
                group.leave()
            }
        }
        group.wait()
    }
}
