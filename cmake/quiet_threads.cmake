# Include at the end of a directory that adds tests. Tests run side by side, so their idle OpenMP threads must sleep instead of
# spinning on cores that another test needs: measured 7.5 s against 0.3 s for one test program on a busy machine.
get_property(test_names DIRECTORY PROPERTY TESTS)
if(test_names)
  set_property(TEST ${test_names} APPEND PROPERTY ENVIRONMENT OMP_WAIT_POLICY=passive)
endif()
