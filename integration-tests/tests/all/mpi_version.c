// Says which MPI library runs it, and how large the world is.
#include <mpi.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv) {
  char version[MPI_MAX_LIBRARY_VERSION_STRING];
  int length, rank, size;
  MPI_Init(&argc, &argv);
  MPI_Get_library_version(version, &length);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  version[strcspn(version, "\n")] = 0;
  printf("rank %d of %d: %s\n", rank, size, version);
  fflush(stdout);
  MPI_Finalize();
  return 0;
}
